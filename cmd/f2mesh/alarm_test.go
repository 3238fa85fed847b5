package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/stream"
	monitor "github.com/f2mesh/f2mesh/services/health"
	"github.com/f2mesh/f2mesh/services/registrar/watch"
)

// TestAlarms causes what each alarm is about on a running mesh, and fixes it.
// TestDowngrade does so with a secret; a broker that drops and a certificate near
// its end take other brokers and other times: see services/registrar/watch.
func TestAlarms(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) {
		c.Health.Interval, c.Health.StalledAfter, c.Health.Window, c.Health.DeadLetters = 200*time.Millisecond, time.Second, 3*time.Second, 5
		c.Registrar.Watch.Interval, c.Registrar.Watch.SilentAfter = 200*time.Millisecond, 2*time.Second
		c.Registrar.Watch.UnheardAfter = time.Second
	})
	heard, err := m.js.Conn().SubscribeSync("f2.alarm.>")
	require.NoError(t, err)
	require.NoError(t, m.js.Conn().Flush())
	client := m.device(t, mac)
	reading := func(payload string) { publish(t, client, "tele/f2-"+string(mac)+"/sensor-mode/J1/sensor-1", payload) }

	t.Run(monitor.StageStalled, func(t *testing.T) {
		require.NoError(t, m.Stop(local.PartDecoder))
		next(t, heard, monitor.StageStalled, "decoder", true)
		require.NoError(t, m.Start(t.Context(), local.PartDecoder))
		next(t, heard, monitor.StageStalled, "decoder", false)
	})
	t.Run(monitor.DeadLetters, func(t *testing.T) {
		for range 5 {
			reading("no JSON at all")
		}
		next(t, heard, monitor.DeadLetters, "decoder", true)
		next(t, heard, monitor.DeadLetters, "decoder", false) // when no more come
	})
	t.Run(monitor.StreamFull, func(t *testing.T) {
		trail, err := m.js.Stream(t.Context(), stream.Audit)
		require.NoError(t, err)
		good := trail.CachedInfo().Config
		small := good
		small.MaxBytes = int64(trail.CachedInfo().State.Bytes) + 1
		_, err = m.js.UpdateStream(t.Context(), small)
		require.NoError(t, err)
		next(t, heard, monitor.StreamFull, stream.Audit, true)
		_, err = m.js.UpdateStream(t.Context(), good)
		require.NoError(t, err)
		next(t, heard, monitor.StreamFull, stream.Audit, false)
	})
	t.Run(watch.Silent, func(t *testing.T) {
		stop := m.chatter(t, fleet.Demo(2)[1].MAC) // else it is the pipeline that is silent, not one device
		defer stop()
		const good = `{"data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`
		reading(good)
		next(t, heard, watch.Silent, string(mac), true)
		reading(good)
		next(t, heard, watch.Silent, string(mac), false)
	})
	t.Run(watch.Unheard, func(t *testing.T) {
		stop := m.chatter(t, fleet.Demo(2)[1].MAC)
		defer stop()
		const good = `{"data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`
		upper := strings.ToUpper(string(mac))
		mixed := upper[:1] + string(mac)[1:]
		if mixed == string(mac) {
			mixed = string(mac)[:11] + upper[11:]
		}
		heard, err := m.js.Conn().SubscribeSync(alarm.Subject("registrar", watch.Unheard))
		require.NoError(t, err)
		until := func(raised bool) {
			for {
				msg, err := heard.NextMsg(30 * time.Second)
				require.NoError(t, err, "no alarm, raised %t", raised)
				var a alarm.Alarm
				require.NoError(t, json.Unmarshal(msg.Data, &a))
				if a.Subject == string(mac) && a.Raised == raised {
					return
				}
			}
		}
		reading(good)
		until(true)
		reading(good)
		until(false)
		publish(t, client, "tele/f2-"+mixed+"/sensor-mode/J1/sensor-1", good) // acknowledged, and dropped by the broker
		until(true)
		reading(good)
		until(false)
	})
}

// chatter has a device report several times a second.
func (m *testMesh) chatter(t *testing.T, from topic.MAC) (stop func()) {
	t.Helper()
	client := m.device(t, from)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			client.Publish("tele/f2-"+string(from)+"/alarm-mode/J3/siren-1", 1, false, `{"status":true}`).Wait()
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() { close(done); <-ended }
}

// next waits for an alarm of a kind about a subject, and passes over others.
func next(t *testing.T, heard *nats.Subscription, kind, subject string, raised bool) {
	t.Helper()
	for {
		msg, err := heard.NextMsg(30 * time.Second)
		require.NoError(t, err, "no alarm %s of %s, raised %t", kind, subject, raised)
		var a alarm.Alarm
		require.NoError(t, json.Unmarshal(msg.Data, &a))
		if a.Kind == kind && a.Subject == subject {
			assert.Equal(t, raised, a.Raised, a.Detail)
			return
		}
	}
}
