package health

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
)

func TestWriteTo(t *testing.T) {
	t.Parallel()
	raised := alarm.Alarm{Kind: DeadLetters, Subject: "decoder", Service: "health", Raised: true}
	for name, test := range map[string]struct {
		status MeshStatus
		want   []string
	}{
		"stages": {MeshStatus{Stages: []ServiceStatus{
			{Stage: "bridge", Ready: true, Rate: 7, Lag: 3}, {Stage: "writer", Lag: 3, Redeliver: 2, Dead: 1, Cause: "no database"},
		}}, []string{"bridge      ready      7    -            -             0", "writer  NOT READY      0    3            2             1", "writer: no database"}},
		"streams": {
			MeshStatus{Streams: []StreamFill{{Stream: "RAW", Messages: 5, Bytes: 1 << 20, MaxBytes: 3 << 20, FullIn: 90, Room: 129600}}},
			[]string{"RAW         5  1.0 MiB  3.0 MiB    1m30s  1.5 days"},
		},
		"no alarm":   {MeshStatus{Watching: Watchers()}, []string{"no alarm is raised"}},
		"no watcher": {MeshStatus{Watching: Watchers()[1:]}, []string{Watchers()[0] + " does not respond: its alarms are unknown"}},
		"alarms":     {MeshStatus{Alarms: []alarm.Alarm{raised}, AlarmsRaised: shownAlarms + 2}, []string{DeadLetters + "  decoder  health  -", "and 2 older ones"}},
	} {
		var out strings.Builder
		n, err := test.status.WriteTo(&out)
		require.NoError(t, err, name)
		assert.Equal(t, int64(out.Len()), n, name)
		for _, text := range test.want {
			assert.Contains(t, out.String(), text, name)
		}
		assert.Equal(t, len(test.status.Alarms) == 0, strings.Contains(out.String(), "no alarm is raised"), name)
	}
}

func TestReadableDays(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{0: "-", 0.4: "0s", 59.6: "1m0s", 86399: "23h59m59s", 86400: "1.0 days", 1e6: "11.6 days"} {
		assert.Equal(t, want, readableDays(seconds), time.Duration(seconds))
	}
}

// TestRates: two looks at nearly the same time, whose counts are not, must not make a rate of millions.
func TestRates(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 12, 1, 5, 0, 0, 0, time.UTC)
	earlier := &MeshStatus{Time: at, Stages: []ServiceStatus{{Stage: "bridge", Received: 100, Rate: 7}}}
	for elapsed, want := range map[time.Duration]float64{
		2 * time.Second: 450, time.Microsecond: 7, 0: 7, -time.Second: 7,
	} {
		now := &MeshStatus{Time: at.Add(elapsed), Stages: []ServiceStatus{{Stage: "bridge", Received: 1000}, {Stage: "decoder", Received: 5}}}
		now.Rates(earlier)
		assert.InDelta(t, want, now.Stages[0].Rate, 1e-9, elapsed)
		assert.Zero(t, now.Stages[1].Rate, "it was not there before")
	}
}
