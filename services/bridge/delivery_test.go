package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// step is one step of a schedule.
type step int

const (
	opens step = iota
	closes
	waits      // some milliseconds
	losesAcks  // the broker gets no further acknowledgement of this bridge
	goesDeaf   // the bridge gets no further bytes from NATS
	holdsBatch // the bridge's further bytes reach NATS when the next bridge runs, or never
	dies
	stops
	steps
)

// play runs the steps. It returns the published messages and those that RAW got.
func (r *rig) play(t *testing.T, schedule []step, noDUP bool) (published, got []string) {
	t.Helper()
	controller := r.publisher(t)
	defer controller.Disconnect(100)
	published = []string{} // a schedule may have no event
	before := r.lastSequence(t)
	begin := func() *life {
		l := r.start(t, func(c *Config, _ *life) { c.DrainTimeout = 10 * time.Second })
		l.mqtt.noDUP.Store(noDUP)
		return l.ready(t)
	}
	l := begin()
	deaf := false
	for i, s := range schedule {
		switch s {
		case opens, closes:
			body := `{"status":true}`
			if s == closes {
				body = `{"status":false}`
			}
			publish(t, controller, door, body)
			published = append(published, body)
		case waits:
			time.Sleep(time.Duration(1+i%10) * 2 * time.Millisecond)
		case losesAcks:
			l.mqtt.noAcks.Store(true)
		case goesDeaf:
			l.nats.noAnswers.Store(true)
			deaf = true
		case holdsBatch:
			l.nats.hold()
			deaf = true
		case dies:
			last := l
			last.kill()
			if i%2 == 0 {
				last.nats.release()
			}
			l = begin()
			last.nats.release()
			deaf = false
		case stops:
			if deaf {
				continue // it would wait for what it can never know
			}
			l.stop(t)
			l = begin()
		}
	}
	l.kill()
	l = begin()
	l.nats.release()
	publish(t, controller, door, "last of all "+t.Name()+strconv.Itoa(int(before)))
	all := r.awaitStored(t, before, "last of all "+t.Name()+strconv.Itoa(int(before)))
	l.stop(t)
	got, _ = bodies(all)
	return published, got[:len(got)-1]
}

// TestSchedules: a door opens and closes while the bridge is killed or stopped at any time.
// RAW has each event once, in order.
func TestSchedules(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	schedules := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return rapid.SampledFrom([]step{opens, opens, closes, closes, waits, waits, losesAcks, goesDeaf, holdsBatch, dies, stops}).Draw(t, "step")
	}), 5, 25)
	seed := int(time.Now().UnixNano() % 1_000_000)
	n := 8
	if text := os.Getenv("F2MESH_SCHEDULES"); text != "" { // seed/number
		_, err := fmt.Sscanf(text, "%d/%d", &seed, &n)
		require.NoError(t, err)
	}
	for i := range n {
		schedule := schedules.Example(seed + i)
		published, got := r.play(t, schedule, false)
		require.Equal(t, published, got, "seed %d: %v", seed+i, schedule)
	}
}

// TestSchedulesWithoutDUP is the control: without DUP, RAW gets copies.
func TestSchedulesWithoutDUP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	published, got := r.play(t, []step{opens, waits, losesAcks, closes, waits, opens, waits, waits, waits, dies, waits}, true)
	assert.Less(t, len(published), len(got))
}

// TestEqualEvents: ten equal events are ten, even if the bridge dies between any two of them.
func TestEqualEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	published, got := r.play(t, slices.Repeat([]step{opens, waits, losesAcks, opens, waits, dies}, 5), false)
	require.Len(t, published, 10)
	assert.Equal(t, published, got)
}

// traffic publishes numbered events as fast as the broker accepts them, but at most 10,000
// ahead of RAW, so that all arrive within the test's patience. stop returns the events that
// the broker acknowledged.
func (r *rig) traffic(tb testing.TB, template string) (stop func() []string) {
	tb.Helper()
	controller := r.publisher(tb)
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan []string)
	go func() {
		var acked []string
		for n := 0; ctx.Err() == nil; {
			if last, err := r.operator.LastSequence(ctx, stream.Raw); err != nil || uint64(n) > last+10_000 {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			var tokens []func() bool
			for range 200 {
				body := fmt.Sprintf(template, n)
				token := controller.Publish(door, 1, false, body)
				tokens = append(tokens, func() bool { return token.WaitTimeout(patience) && token.Error() == nil })
				acked = append(acked, body)
				n++
			}
			for _, ok := range tokens {
				assert.True(tb, ok(), "the broker does not acknowledge")
			}
		}
		done <- acked
	}()
	return func() []string { cancel(); return <-done }
}

var templates = map[string]string{
	"with timestamps": `{"timestamp":"2026-07-01 12:00:00","status":true,"n":%d}`, "without timestamps": `{"status":true,"n":%d}`,
}

// requireOnce fails unless RAW has all published messages once and in order.
func (r *rig) requireOnce(tb testing.TB, published []string) {
	tb.Helper()
	require.Greater(tb, len(published), 1000, "too little traffic to tell anything")
	got, _ := bodies(r.awaitStored(tb, 0, published[len(published)-1]))
	if !slices.Equal(published, got) {
		times := map[string]int{}
		for _, body := range got {
			times[body]++
		}
		lost, doubled := 0, 0
		for _, body := range published {
			if times[body] == 0 {
				lost++
			}
			doubled += max(0, times[body]-1)
		}
		require.Fail(tb, "RAW is not what was published", "%d of %d lost, %d doubled", lost, len(published), doubled)
	}
}

// TestRestartsUnderLoad stops the bridge five times.
func TestRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	for name, template := range templates {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.start(t).ready(t).stop(t) // the session is there
			stop := r.traffic(t, template)
			copies := 0.0
			for range 5 {
				l := r.start(t, func(c *Config, _ *life) { c.DrainTimeout = patience }).ready(t)
				require.Eventually(t, func() bool { return testutil.ToFloat64(l.metrics.stored) > 1000 }, patience, time.Millisecond)
				l.stop(t)
				copies += testutil.ToFloat64(l.metrics.duplicates)
			}
			assert.Zero(t, copies, "a stop waits until the broker has read the acknowledgements")
			l := r.start(t)
			r.requireOnce(t, stop())
			l.stop(t)
		})
	}
}

// processVariable is set in the environment of a process that runs a bridge.
const processVariable = "F2MESH_TEST_BRIDGE"

type processConfig struct{ NATS, CA, MQTT string }

// runUntilKilled runs the bridge that TestKilledProcess kills.
func runUntilKilled(text string) {
	var c processConfig
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = runBridge(c, log)
	}
	log.Error("ended", "error", err)
	os.Exit(1)
}

func runBridge(c processConfig, log *slog.Logger) error {
	user := natsserver.Bridge
	nc, err := stream.Connect(stream.Config{URL: c.NATS, CAFile: c.CA}, user, secrettest.Credential(user, natsservertest.Password(user)), log)
	if err != nil {
		return err
	}
	client, err := stream.NewClient(nc, natsfiles.Files, log)
	if err != nil {
		return err
	}
	cfg := testConfig()
	cfg.URL, cfg.ClientID, cfg.MaxPayload = c.MQTT, "bridge", 1<<16
	b, err := New(cfg, secrettest.Credential("bridge", password), client, prometheus.NewRegistry(), log)
	if err != nil {
		return err
	}
	return b.Run(context.Background())
}

// TestKilledProcess kills the bridge's process five times.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	for name, template := range templates {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			text, err := json.Marshal(processConfig{NATS: r.server.URL(), CA: r.nats.CAFile, MQTT: "tcp://" + r.broker.Address()})
			require.NoError(t, err)
			start := func() *exec.Cmd {
				cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^$")
				cmd.Env = append(os.Environ(), processVariable+"="+string(text))
				cmd.Stderr = t.Output()
				require.NoError(t, cmd.Start())
				t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
				return cmd
			}
			p := start()
			r.awaitSession(t)
			stop := r.traffic(t, template)
			for range 5 {
				r.awaitMore(t, 1000)
				require.NoError(t, p.Process.Kill())
				_ = p.Wait()
				p = start()
			}
			r.requireOnce(t, stop())
		})
	}
}

// awaitSession waits until the broker keeps messages for the bridge. It leaves RAW empty.
func (r *rig) awaitSession(tb testing.TB) {
	tb.Helper()
	controller := r.publisher(tb)
	siren := strings.Replace(door, "strike", "siren", 1)
	require.Eventually(tb, func() bool {
		publish(tb, controller, siren, "1")
		return r.lastSequence(tb) > 0
	}, patience, 20*time.Millisecond)
	publish(tb, controller, siren, "last")
	controller.Disconnect(100)
	r.awaitStored(tb, 0, "last")
	require.NoError(tb, r.raw.Purge(tb.Context()))
}

// awaitMore waits until RAW has n more messages.
func (r *rig) awaitMore(tb testing.TB, n uint64) {
	tb.Helper()
	before := r.lastSequence(tb)
	require.Eventually(tb, func() bool { return r.lastSequence(tb) > before+n }, patience, time.Millisecond)
}

// TestLateBatch: a batch of a killed bridge reaches the server after the next bridge has read
// the end of RAW. RAW has its messages once, also if the next bridge gets them one by one.
func TestLateBatch(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 20} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			testLateBatch(t, n)
		})
	}
}

func testLateBatch(t *testing.T, n int) {
	t.Helper()
	r := newRig(t)
	controller := r.publisher(t)
	killed := r.start(t, func(c *Config, _ *life) { c.Batch, c.Linger = n, time.Minute }).ready(t)
	require.Eventually(t, func() bool { return killed.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
	killed.nats.hold()
	before := killed.nats.sent.Load()
	var sent []string
	for i := range n + 2 {
		sent = append(sent, strconv.Itoa(i))
	}
	for _, body := range sent[:n] {
		publish(t, controller, door, body)
	}
	require.Eventually(t, func() bool { // the connection is encrypted: the test cannot see the batch
		return testutil.ToFloat64(killed.metrics.received) == float64(n) && killed.nats.sent.Load() > before+200*int64(n)
	}, patience, time.Millisecond)
	for _, body := range sent[n:] {
		publish(t, controller, door, body)
	}
	killed.kill()

	next := r.start(t, func(c *Config, l *life) { c.Batch = 1; l.mqtt.hold() })
	require.Eventually(t, func() bool { return next.raw.Load() != nil }, patience, time.Millisecond)
	require.Zero(t, r.lastSequence(t), "the control")
	killed.nats.release()
	require.Eventually(t, func() bool { return r.lastSequence(t) > 0 }, patience, time.Millisecond)
	next.mqtt.release()
	publish(t, controller, door, "last")
	got, _ := bodies(r.awaitStored(t, 0, "last"))
	assert.Equal(t, append(sent, "last"), got)
	assert.InDelta(t, n, testutil.ToFloat64(next.metrics.duplicates), 0)
	next.stop(t)
}
