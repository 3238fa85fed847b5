package alarm

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// setting is a number from the environment.
func setting(t *testing.T, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// TestFiftyRules holds 50 rules against messages that come at a rate. In the first half it takes the
// time from the message of a door to the webhook, while the others come; in the second half the
// service is killed again and again, and in the end all messages are delivered once more. Every alarm
// that the reference finds is raised once. F2MESH_ALARM_RATE and F2MESH_ALARM_SECONDS set how many
// messages come.
func TestFiftyRules(t *testing.T) {
	t.Parallel()
	const (
		rules, holding = 50, 3 // the others never hold
		every          = 20 * time.Millisecond
		doorEvery      = 10 // batches
	)
	rate, seconds := setting(t, "F2MESH_ALARM_RATE", 500), setting(t, "F2MESH_ALARM_SECONDS", 6)
	const sensors = 400
	d := draw(7, rules-1, sensors, rate*seconds, 100/math.Sqrt(float64(rate*seconds)/sensors))
	for i := range d.limits {
		d.limits[i].hold, d.limits[i].from, d.limits[i].to = 0, 0, 0 // time does not pass as in the messages
		if i >= holding {
			d.limits[i].raise, d.limits[i].clear = 200, 200
		}
	}
	want := d.wanted()
	require.NotEmpty(t, want)
	h := newHook(t)
	r := newRig(t, d.yaml()+"- {name: open, component: door-sensors, severity: critical, when: on}\n"+fmt.Sprintf("receivers: [{name: a, rule: open, webhook: {url: %q}}]\n", h.URL))
	_, stop := r.start()
	ready := make([]*nats.Msg, len(d.readings))
	for i, one := range d.readings {
		ready[i] = d.message(r, one)
	}
	var doors []time.Time
	began := time.Now()
	sent := 0
	tick := time.NewTicker(every)
	defer tick.Stop()
	killed := 0
	for n := 0; sent < len(d.readings); n++ {
		<-tick.C
		due := min(int(time.Since(began).Seconds()*float64(rate)), sent+min(len(ready)/20, stream.MaxBatch-1), len(ready))
		all := slices.Clone(ready[sent:due])
		sent = due
		if first := sent <= len(d.readings)/2; first && n%doorEvery == 0 {
			doors = append(doors, time.Now())
			all = append(all, r.state(door, time.Now().UTC(), len(doors)%2 == 1))
		} else if !first && sent >= len(d.readings)*(killed+6)/10 {
			stop()
			killed++
			_, stop = r.start()
		}
		r.store(all)
	}
	came := float64(sent) / time.Since(began).Seconds()
	r.settled()
	require.Eventually(t, func() bool { return len(h.received()) >= len(doors) }, patience, 10*time.Millisecond)
	of := func() map[string][]begun {
		all := raised(r.entries())
		maps.DeleteFunc(all, func(id string, _ []begun) bool { return !strings.HasPrefix(id, "rule.rule-") })
		return all
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Equal(c, count(want), count(of())) }, patience, 100*time.Millisecond)
	assert.Equal(t, want, of())
	entries := len(r.entries())

	stop()
	_, err := r.operator.JetStream().ResetConsumerToSequence(t.Context(), stream.Decoded, serviceName, 1)
	require.NoError(t, err)
	began = time.Now()
	r.start()
	r.settled()
	took := time.Since(began)
	assert.Len(t, r.entries(), entries, "all of it again changes nothing")

	var late []time.Duration
	for i, at := range doors {
		late = append(late, h.times[i].Sub(at))
	}
	slices.Sort(late)
	t.Logf("%d rules, %d messages at %.0f of %d a second, %d kills: %d alarms, as the reference finds them; from a door's message to the webhook (%d): median %s, p99 %s, longest %s; all again at %.0f messages/s",
		rules, sent, came, rate, killed, count(want), len(late), late[len(late)/2].Round(time.Millisecond), late[len(late)*99/100].Round(time.Millisecond), late[len(late)-1].Round(time.Millisecond),
		float64(sent)/took.Seconds())
	assert.GreaterOrEqual(t, killed, 3)
	for _, e := range r.entries() {
		if e.Rule == "open" && e.Status == alert.Raised {
			return
		}
	}
	t.Error("the control: the door's rule raised nothing")
}
