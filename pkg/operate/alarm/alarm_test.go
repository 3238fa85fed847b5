package alarm

import (
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsservertest.Leftovers()...) }

// TestRaised lists what is raised, and fits into a message whatever there is.
func TestRaised(t *testing.T) {
	t.Parallel()
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "alarms"}, []string{"alarm"})
	b := NewBoard("registrar", []string{"silent"}, func(Alarm) error { return nil }, gauge, slog.New(slog.DiscardHandler))
	assert.Equal(t, Listing{Alarms: []Alarm{}}, b.Raised())
	b.Raise("silent", "first", "one")
	b.Raise("silent", "second", "two")
	l := b.Raised()
	assert.Equal(t, 2, l.Total)
	require.Len(t, l.Alarms, 2)
	assert.False(t, l.Alarms[0].Since.Before(l.Alarms[1].Since), "the youngest first")
	b.Clear("silent", "first")
	require.Len(t, b.Raised().Alarms, 1)
	assert.Equal(t, "second", b.Raised().Alarms[0].Subject)

	const many = 3 * mostListed
	for i := range many {
		b.Raise("silent", strconv.Itoa(i), strings.Repeat("\x00", 2*longestDetail))
	}
	l = b.Raised()
	assert.Equal(t, many+1, l.Total)
	assert.Len(t, l.Alarms, mostListed)
	data, err := json.Marshal(l)
	require.NoError(t, err)
	assert.Less(t, len(data), 2<<20, "max_payload of nats-server.conf")
}

func TestShortened(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "short", shortened("short"))
	long := shortened(strings.Repeat("ü", longestDetail))
	assert.True(t, utf8.ValidString(long))
	assert.LessOrEqual(t, len(long), longestDetail+len("…"))
	assert.Equal(t, strings.Repeat("ü", longestDetail/2)+"…", long)
	assert.True(t, utf8.ValidString(shortened("a"+strings.Repeat("ü", longestDetail))))
}

func TestPublish(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	connect := func(user string) *nats.Conn {
		nc, err := nats.Connect("", nats.InProcessServer(server.InProcess()), nats.UserInfo(user, natsservertest.Password(user)))
		require.NoError(t, err)
		t.Cleanup(func() { natsservertest.Close(nc) })
		return nc
	}
	bridge, operator := connect(natsserver.Bridge), connect(natsserver.Operator)
	alarms, err := operator.SubscribeSync("f2.alarm.>")
	require.NoError(t, err)
	require.NoError(t, operator.Flush())

	since := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	want := Alarm{Kind: "secret_downgraded", Service: "bridge", Subject: "mqtt_password", Since: since, Raised: true, Detail: "sealed"}
	other := want
	other.Service = "writer"
	require.NoError(t, Publish(bridge, other), "the server drops it: the control")
	require.NoError(t, Publish(bridge, want))
	m, err := alarms.NextMsg(time.Minute)
	require.NoError(t, err)
	assert.Equal(t, "f2.alarm.bridge.secret_downgraded", m.Subject)
	assert.JSONEq(t, `{"alarm":"secret_downgraded","service":"bridge","subject":"mqtt_password","since":"2026-07-01T12:00:00Z","raised":true,"detail":"sealed"}`, string(m.Data))
	var got Alarm
	require.NoError(t, json.Unmarshal(m.Data, &got))
	assert.Equal(t, want, got)

	natsservertest.Close(bridge)
	require.ErrorContains(t, Publish(bridge, want), "secret_downgraded")
}
