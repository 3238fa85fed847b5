package mosquitto

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// TestQueueForAnAbsentBridge has what makes a Mosquitto forget, of a session whose
// client is away, whose it is and what that user may read. Some do so at once
// with per_listener_settings, all do at a reload after a restart: the control.
func TestQueueForAnAbsentBridge(t *testing.T) {
	t.Parallel()
	restart := func(b *bench) { b.stop(); b.start() }
	reload := (*bench).reload
	for name, meanwhile := range map[string][]func(*bench){
		"nothing":         nil,
		"restart":         {restart},
		"reload":          {reload},
		"reload, restart": {reload, restart},
		"restart, reload": {restart, reload},
		"two restarts":    {restart, restart},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.cfg.Session = Session{User: "bridge", ClientID: "bridge", Filter: "tele/#"}
			b.start()
			b.setDevices([]topic.MAC{device})
			b.absentBridge()
			b.publish("before")
			for _, f := range meanwhile {
				f(b)
			}
			b.publish("between", oldFirmware, "last")
			assert.Len(t, b.queued("last"), 4)
		})
	}
}

// reload has the broker read its files again, and returns when it has: another
// controller may publish then, on what the bridge here has not subscribed to.
func (b *bench) reload() {
	b.t.Helper()
	client, arrived := listen(b.t, b.userOptions("operator"), "stat/#")
	defer client.Disconnect(100)
	newcomer := connectMQTT(b.t, b.deviceOptions(neighbor))
	defer newcomer.Disconnect(100)
	b.setDevices([]topic.MAC{device, neighbor})
	require.Eventually(b.t, func() bool {
		wait(b.t, newcomer.Publish("stat/f2-"+string(neighbor)+"/x", 1, false, "registered"))
		return len(arrived) > 0
	}, patience, 20*time.Millisecond)
}

// TestSessionIsForgottenUnlessItIsNamed is the control. Mosquitto 2.1 forgets no
// session.
func TestSessionIsForgottenUnlessItIsNamed(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	v, err := Installed(t.Context())
	require.NoError(t, err)
	want := []string{deviceTopic + "=after"}
	if v.Minor >= 1 {
		want = []string{deviceTopic + "=dropped", deviceTopic + "=after"}
	}
	b.setDevices([]topic.MAC{device})
	b.absentBridge()
	b.stop()
	b.start()
	b.reload()
	client, arrived := listen(t, b.userOptions("operator"), "tele/#")
	b.publish("dropped")
	until(t, arrived, "tele/f2-e4fd45f654be/x=dropped")
	client.Disconnect(100)
	client, arrived = listen(t, b.bridgeOptions())
	defer client.Disconnect(100)
	b.publish("after")
	assert.Equal(t, want, until(t, arrived, deviceTopic+"=after"))
}
