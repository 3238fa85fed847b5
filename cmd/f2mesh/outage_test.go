package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// traffic publishes numbered readings until it is stopped, and remembers which
// the broker acknowledged.
type traffic struct {
	stop  context.CancelFunc
	done  sync.WaitGroup
	mu    sync.Mutex
	acked map[time.Time]time.Time // when the broker did, by the reading's own time
	kills []time.Time             // of the broker
}

// unsaved is how long before its end a broker that saves each message may have
// acknowledged one that it has not saved (design 5.10).
const unsaved = 50 * time.Millisecond

// excused tells whether a reading is beyond what a killed broker promises.
func (tr *traffic) excused(acknowledged time.Time) bool {
	return slices.ContainsFunc(tr.kills, func(kill time.Time) bool { return acknowledged.Sub(kill).Abs() < unsaved })
}

// startTraffic publishes about 500 readings a second.
func startTraffic(t *testing.T, client mqtt.Client) *traffic {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	tr := &traffic{stop: stop, acked: map[time.Time]time.Time{}}
	start := time.Now().UTC().Truncate(time.Microsecond)
	tr.done.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			for !client.IsConnectionOpen() && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			at := start.Add(time.Duration(n) * time.Microsecond)
			token := client.Publish("tele/f2-"+string(mac)+"/sensor-mode/J1/sensor-1", 1, false,
				fmt.Sprintf(`{"timestamp":%q,"temperature":%d}`, at.Format(time.RFC3339Nano), n))
			tr.done.Go(func() {
				if token.WaitTimeout(60*time.Second) && token.Error() == nil {
					tr.mu.Lock()
					defer tr.mu.Unlock()
					tr.acked[at] = time.Now()
				}
			})
			time.Sleep(2 * time.Millisecond)
		}
	})
	return tr
}

func (tr *traffic) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.acked)
}

// finish stops the traffic and requires every acknowledged reading to be in the
// table, once.
func (tr *traffic) finish(t *testing.T, m *testMesh) {
	t.Helper()
	eventually(t, func() bool { return tr.count() > 100 }, "too little traffic to tell anything")
	tr.stop()
	tr.done.Wait()
	eventually(t, func() bool { return tr.missing(t, m) == 0 },
		"readings that the broker acknowledged are not in the table")
	assert.Equal(t, m.count(t, "SELECT count(*) FROM measurement"), m.count(t, "SELECT count(DISTINCT (device_id, datapoint_id, time)) FROM measurement"))
}

func (tr *traffic) missing(t *testing.T, m *testMesh) int {
	t.Helper()
	rows, err := m.rows.Query(t.Context(), "SELECT time FROM measurement")
	if err != nil {
		return -1
	}
	defer rows.Close()
	there := map[time.Time]bool{}
	for rows.Next() {
		var at time.Time
		require.NoError(t, rows.Scan(&at))
		there[at.UTC()] = true
	}
	if rows.Err() != nil {
		return -1
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	missing := 0
	for at, acknowledged := range tr.acked {
		if !there[at] && !tr.excused(acknowledged) {
			missing++
		}
	}
	return missing
}

// TestStopAndStart stops each part during traffic and starts it again.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	for _, name := range []string{local.PartBridge, local.PartDecoder, local.PartWriter, local.PartMosquitto, local.PartNATS, local.PartPostgres, local.PartPgBouncer} {
		t.Run(name, func(t *testing.T) {
			tr := startTraffic(t, m.device(t, mac))
			time.Sleep(400 * time.Millisecond)
			require.NoError(t, m.Stop(name))
			time.Sleep(700 * time.Millisecond)
			require.NoError(t, m.Start(t.Context(), name))
			time.Sleep(400 * time.Millisecond)
			tr.finish(t, m)
		})
	}
}

// TestCrash kills broker and database during traffic; the supervisor starts
// them again. The broker saves every message here: without that its own crash
// may lose what it has acknowledged (design 5.10). It does so after it has
// acknowledged: what it did in its last moment is not judged.
func TestCrash(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Autosave = mosquitto.Autosave{Changes: 1} })
	kill := map[string]func() error{
		local.PartMosquitto: func() error { m.Mu.Lock(); defer m.Mu.Unlock(); return m.Mqtt.Kill() },
		local.PartPostgres:  func() error { m.Mu.Lock(); defer m.Mu.Unlock(); return m.Cluster.Kill() },
		local.PartPgBouncer: func() error { m.Mu.Lock(); defer m.Mu.Unlock(); return m.Pooler.Kill() },
	}
	for name, kill := range kill {
		t.Run(name, func(t *testing.T) {
			tr := startTraffic(t, m.device(t, mac))
			for range 2 {
				time.Sleep(600 * time.Millisecond)
				if name == local.PartMosquitto {
					tr.mu.Lock()
					tr.kills = append(tr.kills, time.Now())
					tr.mu.Unlock()
				}
				require.NoError(t, kill())
				time.Sleep(900 * time.Millisecond)
			}
			tr.finish(t, m)
		})
	}
}

// TestKilledService kills each service as a process of its own, twice, during
// traffic: no drain, no goodbye.
func TestKilledService(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	for _, name := range []string{local.PartBridge, local.PartDecoder, local.PartWriter} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, m.Stop(name))
			defer func() { require.NoError(t, m.Start(t.Context(), name)) }()
			p := m.startProcess(t, name)
			tr := startTraffic(t, m.device(t, mac))
			for range 2 {
				time.Sleep(700 * time.Millisecond)
				require.NoError(t, p.Process.Kill())
				_ = p.Wait()
				p = m.startProcess(t, name)
			}
			time.Sleep(500 * time.Millisecond)
			tr.finish(t, m)
			require.NoError(t, p.Process.Signal(os.Interrupt))
			require.NoError(t, p.Wait(), "a stop is not an error")
		})
	}
}

// startProcess runs one service as `f2mesh <name>` does.
func (m *testMesh) startProcess(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(context.Background(), self, name, "--log-format=json")
	cmd.Env = slices.Concat(os.Environ(), []string{"F2MESH_TEST_RUN=1"}, m.ServiceEnvironment())
	cmd.Stderr = t.Output()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// TestFullStream fills RAW: the broker must keep what does not fit, and it must
// arrive when there is room again.
func TestFullStream(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	stream, err := m.js.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	config.MaxMsgs = 300
	_, err = m.js.UpdateStream(t.Context(), config)
	require.NoError(t, err)

	tr := startTraffic(t, m.device(t, mac))
	eventually(t, func() bool { return tr.count() > 600 }, "no traffic")
	assert.LessOrEqual(t, m.count(t, "SELECT count(*) FROM measurement"), 300, "the control: the stream is full")
	config.MaxMsgs = -1
	_, err = m.js.UpdateStream(t.Context(), config)
	require.NoError(t, err)
	tr.finish(t, m)
}

// TestDeletedConsumer deletes each stage's place in its stream, as an operator
// may by mistake: the stage makes it anew instead of waiting for ever.
func TestDeletedConsumer(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	tr := startTraffic(t, m.device(t, mac))
	eventually(t, func() bool { return tr.count() > 100 }, "no traffic")
	for _, c := range [][2]string{{stream.Commands, local.PartBridge}, {stream.Raw, local.PartDecoder}, {stream.Decoded, local.PartWriter}} {
		require.NoError(t, m.js.DeleteConsumer(t.Context(), c[0], c[1]))
		eventually(t, func() bool {
			_, err := m.js.Consumer(t.Context(), c[0], c[1])
			return err == nil
		}, "the consumer of %s is not made anew", c[1])
	}
	tr.finish(t, m)
}

// TestCommandsOnce stops the bridge while commands are under way, again and
// again: a door opens once for each.
func TestCommandsOnce(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Bridge.CommandMaxAge = time.Minute })
	const commands = 120
	var mu sync.Mutex
	heard := map[string]int{}
	token := m.device(t, mac).Subscribe("cmnd/f2-"+string(mac)+"/#", 1, func(_ mqtt.Client, msg mqtt.Message) {
		mu.Lock()
		defer mu.Unlock()
		heard[string(msg.Payload())]++
	})
	require.True(t, token.WaitTimeout(10*time.Second))
	require.NoError(t, token.Error())
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(heard) }
	for n := range commands {
		_, err := m.js.Publish(t.Context(), "f2.command."+string(mac)+".access-control-mode.2.strike-1",
			fmt.Appendf(nil, `{"power-flag":%d,"period":%d}`, n/200, n%200+1))
		require.NoError(t, err)
		if n%100 == 50 {
			seen := count()
			eventually(t, func() bool { return count() > seen }, "no command comes")
			require.NoError(t, m.Stop(local.PartBridge))
			require.NoError(t, m.Start(t.Context(), local.PartBridge))
		}
	}
	eventually(t, func() bool { return count() == commands }, "commands are missing")
	for command, times := range heard {
		assert.Equal(t, 1, times, command)
	}
}
