package alarm

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/natsserver"
	"github.com/f2mesh/f2mesh/pkg/natsserver/natsservertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsservertest.Leftovers()...) }

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
