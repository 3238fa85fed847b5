package mosquitto

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/port"
)

// oldFirmware is what is published at QoS 0.
const oldFirmware = "old firmware"

func mqttHost(number int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(number)) }

// absentBridge has a session that waits for it.
func (b *bench) absentBridge() {
	b.t.Helper()
	client, _ := listen(b.t, b.bridgeOptions(), "tele/#")
	client.Disconnect(100)
}

func (b *bench) bridgeOptions() *mqtt.ClientOptions {
	return b.userOptions("bridge").SetClientID("bridge").SetCleanSession(false)
}

// publish returns when the broker has all, as its acknowledgement of the last tells.
func (b *bench) publish(payloads ...string) {
	b.t.Helper()
	client := connectMQTT(b.t, b.deviceOptions(device))
	for _, payload := range payloads {
		qos := byte(1)
		if payload == oldFirmware {
			qos = 0
		}
		wait(b.t, client.Publish("tele/f2-e4fd45f654be/x", qos, false, payload))
	}
	client.Disconnect(100)
}

func (b *bench) queued(last string) []string {
	b.t.Helper()
	client, arrived := listen(b.t, b.bridgeOptions())
	defer client.Disconnect(100)
	return until(b.t, arrived, "tele/f2-e4fd45f654be/x="+last)
}

func TestQueueOutlastsStop(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	b.absentBridge()
	b.publish("1", oldFirmware, "2")
	first := b.broker.Pid()
	b.stop()
	b.start()
	assert.NotEqual(t, first, b.broker.Pid())
	b.publish("3")
	assert.Len(t, b.queued("3"), 4)
}

func TestQueueOutlastsKillOnceSaved(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	b.absentBridge()
	b.publish("saved")
	require.NoError(t, b.broker.Save())
	database := filepath.Join(b.cfg.Dir, "data", "mosquitto.db")
	require.Eventually(t, func() bool { _, err := os.Stat(database); return err == nil }, patience, 10*time.Millisecond)
	b.publish("not saved") // the boundary of design 5.8
	require.NoError(t, b.broker.Kill())
	b.start()
	b.publish("after")
	assert.Equal(t, []string{"tele/f2-e4fd45f654be/x=saved", "tele/f2-e4fd45f654be/x=after"}, b.queued("after"))
}

func TestAutosaveBoundsTheLoss(t *testing.T) {
	t.Parallel()
	for name, autosave := range map[string]Autosave{
		"by time": {Every: time.Second}, "by changes": {Changes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.cfg.Autosave = autosave
			b.start()
			b.setDevices([]topic.MAC{device})
			b.absentBridge()
			b.publish("saved-by-itself")
			require.Eventually(t, func() bool {
				database, err := os.ReadFile(filepath.Join(b.cfg.Dir, "data", "mosquitto.db"))
				return err == nil && bytes.Contains(database, []byte("saved-by-itself"))
			}, autosave.Every+2500*time.Millisecond, 10*time.Millisecond, "the broker looks once a second")
			require.NoError(t, b.broker.Kill())
			b.start()
			b.publish("after")
			assert.Len(t, b.queued("after"), 2)
		})
	}
}

func TestFolderIsNotShared(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	second := b.cfg
	second.Port, second.TLSPort, second.WebSocketPort = 0, 0, 0
	s := &starter{cfg: second.withDefaults()}
	var err error
	s.owner, s.dir, err = place(second.Dir)
	require.NoError(t, err)
	ctx := shortly(t)
	require.ErrorContains(t, s.awaitEarlier(ctx), "another broker")
	b.stop()
	require.NoError(t, s.awaitEarlier(t.Context()))
}

func TestTakenPortIsAnError(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	other := newBench(t)
	other.cfg.Port, other.cfg.TLSPort, other.cfg.WebSocketPort = b.cfg.Port, b.cfg.TLSPort, b.cfg.WebSocketPort
	other.cfg.Users = map[string]string{"bridge": "another password"}
	_, err := Start(t.Context(), other.cfg)
	require.ErrorIs(t, err, port.ErrTaken)
	assert.False(t, refused(b.userOptions("bridge")), "the first serves on")
}
