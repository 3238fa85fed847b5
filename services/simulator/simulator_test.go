package simulator

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestBoundedRunDeliversEveryMessage(t *testing.T) {
	const controllers, messages, malformed = 12, 6000, 540
	m := startMesh(t, controllers)
	received, acknowledged := newInbox(), newInbox()
	m.subscribe(t, received)

	var digests, text strings.Builder
	report, err := m.simulator(Config{
		Messages: messages, Malformed: malformed, OldFirmware: 0.25, OnAcknowledged: acknowledged.add, Digests: &digests,
	}).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, messages+malformed, strings.Count(digests.String(), "\n"))
	_, err = report.WriteTo(&text)
	require.NoError(t, err)
	require.Contains(t, text.String(), "acknowledged 6540, unacknowledged 0, sent again 0; ")
	require.Contains(t, text.String(), "\n  topic_levels             20\n")
	require.EqualValues(t, messages+malformed, report.Acknowledged)
	require.EqualValues(t, messages+malformed, report.Sent)
	require.Zero(t, report.Retried)
	require.Zero(t, report.Unacknowledged)
	require.EqualValues(t, controllers, report.Connections)
	require.Len(t, report.Malformed, len(classes))
	for k := topic.Sensor; k <= topic.ExitButtons; k++ {
		require.Positive(t, report.Components[k.String()], k.String())
	}
	require.Equal(t, messages+malformed, acknowledged.len(), "each acknowledged message is an event of its own")
	require.Eventually(t, func() bool { return received.len() == messages+malformed }, 20*time.Second, 20*time.Millisecond)
	require.Zero(t, acknowledged.missing(received))
}

func TestIntervalSpreadsTheFleet(t *testing.T) {
	const controllers = 4
	m := startMesh(t, controllers)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	s := m.simulator(Config{Interval: 500 * time.Millisecond})
	report, err := s.Run(ctx)
	require.NoError(t, err)
	require.Zero(t, report.Unacknowledged)
	each := int64(len(newDevice(s, 0, nil).components))
	require.GreaterOrEqual(t, report.Acknowledged, 2*controllers*each)
	// At full speed it would be hundreds of times as many.
	require.LessOrEqual(t, report.Acknowledged, 8*controllers*each)
}

func TestRateBoundsFullSpeed(t *testing.T) {
	const rate, messages = 1000, 1500
	m := startMesh(t, 3)
	report, err := m.simulator(Config{Rate: rate, Messages: messages}).Run(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, messages, report.Acknowledged)
	require.Greater(t, report.Duration, messages*time.Second/rate-200*time.Millisecond)
	require.Less(t, report.Duration, 3*messages*time.Second/rate)
}

// TestFullSpeedStartsTogether connects one controller after the other: no message is sent
// before the last is connected.
func TestFullSpeedStartsTogether(t *testing.T) {
	const controllers = 20
	m := startMesh(t, controllers)
	var s *Simulator
	var early atomic.Int64
	s = m.simulator(Config{Messages: controllers * 200, Connecting: 1, OnAcknowledged: func(string, []byte) {
		if s.Report().Connections < controllers {
			early.Add(1)
		}
	}})
	report, err := s.Run(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, controllers, report.Connections)
	require.Zero(t, early.Load())
}

// TestBrokerRestarts restarts the broker: a subscriber with a persistent session receives
// every message whose PUBACK came.
func TestBrokerRestarts(t *testing.T) {
	const messages = 60_000
	m := startMesh(t, 5)
	received, acknowledged := newInbox(), newInbox()
	m.subscribe(t, received)
	s := m.simulator(Config{Messages: messages, OnAcknowledged: acknowledged.add})

	var wg sync.WaitGroup
	var report Totals
	var err error
	wg.Go(func() { report, err = s.Run(t.Context()) })
	for range 2 {
		before := s.Report().Acknowledged
		require.Eventually(t, func() bool { return s.Report().Acknowledged > before+1000 }, 20*time.Second, time.Millisecond)
		require.NoError(t, m.broker.Stop(t.Context()))
		m.start(t)
	}
	wg.Wait()
	require.NoError(t, err)
	require.EqualValues(t, messages, report.Acknowledged, "counted once each")
	require.EqualValues(t, messages, report.Sent)
	require.Equal(t, messages, acknowledged.len())
	require.Greater(t, report.Connections, int64(5))
	assert.Eventually(t, func() bool { return received.len() >= messages }, 30*time.Second, 20*time.Millisecond)
	require.Zero(t, acknowledged.missing(received), "%d retried", report.Retried)
}

func TestStopIsOrderlyAndBounded(t *testing.T) {
	m := startMesh(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	s := m.simulator(Config{Messages: 100_000_000})
	var wg sync.WaitGroup
	wg.Go(func() {
		report, err := s.Run(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, report.Unacknowledged, "what was under way is acknowledged")
	})
	require.Eventually(t, func() bool { return s.Report().Acknowledged > 1000 }, 10*time.Second, time.Millisecond)
	started := time.Now()
	cancel()
	wg.Wait()
	require.Less(t, time.Since(started), 2*grace)
}

func TestStopWhileTheBrokerIsAway(t *testing.T) {
	m := startMesh(t, 3)
	require.NoError(t, m.broker.Stop(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	report, err := m.simulator(Config{}).Run(ctx)
	require.NoError(t, err)
	require.Zero(t, report.Sent)
}

func TestUnusableConfiguration(t *testing.T) {
	m := startMesh(t, 1)
	s := m.simulator(Config{})
	s.cfg.Devices = t.TempDir()
	_, err := s.Run(t.Context())
	require.ErrorContains(t, err, "loading certificate of e4fd45f654be")

	s = m.simulator(Config{})
	s.cfg.CAFile = s.cfg.Devices + "/none"
	_, err = s.Run(t.Context())
	require.ErrorContains(t, err, "reading CA")

	s = m.simulator(Config{})
	s.cfg.Broker = "tcp://127.0.0.1:1883"
	_, err = s.Run(t.Context())
	require.ErrorContains(t, err, "known: ssl")

	s = m.simulator(Config{})
	s.controllers = nil
	_, err = s.Run(t.Context())
	require.ErrorContains(t, err, "no controllers")
}

func TestCommandsAreAnswered(t *testing.T) {
	m := startMesh(t, 1)
	received := newInbox()
	client := m.subscribe(t, received)
	s := m.simulator(Config{Interval: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := s.Run(ctx)
		require.NoError(t, err)
	})
	first := len(newDevice(s, 0, nil).components)
	require.Eventually(t, func() bool { return received.len() == first }, 10*time.Second, time.Millisecond)

	bare, dashed := "cmnd/f2-e4fd45f654be/", "cmnd/f2-e4-fd-45-f6-54-be/"
	stat := "stat/f2-e4fd45f654be/"
	for _, step := range []struct{ topic, body, answer, state string }{
		{bare + "access-control-mode/J3/strike-1", `{"power-flag":1,"period":1}`, stat + "access-control-mode/J3/strike-1", `"status":true}`},
		{"", "", stat + "access-control-mode/J3/strike-1", `"status":false}`}, // the period is over
		{dashed + "access-control-mode/3/strike-1", `{"power-flag":2}`, stat + "access-control-mode/J3/strike-1", `"status":true}`},
		{bare + "access-control-mode/J3/strike-1", "", stat + "access-control-mode/J3/strike-1", `"status":true}`},
		{dashed + "alarm-mode/J4/siren-1", "1", stat + "alarm-mode/J4/siren-1", `"status":true}`},
		{bare + "alarm-mode/J4/siren-1", "0", stat + "alarm-mode/J4/siren-1", `"status":false}`},
		{bare + "access-control-mode/J3/door-sensors", "", stat + "access-control-mode/J3/door-sensors", `"door-sensor-2":`},
		{bare + "sensor-mode/J1/sensor-1", "", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", `"data":"01 03 0C `},
	} {
		before := received.count(step.answer, step.state)
		publish(t, client, step.topic, step.body)
		require.Eventually(t, func() bool { return received.count(step.answer, step.state) == before+1 },
			5*time.Second, time.Millisecond, "%s %s", step.topic, step.body)
	}
	publish(t, client, bare+"access-control-mode/J3/reader-1/success", "1")
	publish(t, client, bare+"access-control-mode/J3/reader-1/success", "7") // refused
	publish(t, client, bare+"alarm-mode/J1/siren-9", "1")                   // there is none
	require.Eventually(t, func() bool { return s.Report().Commands == 8 }, 5*time.Second, time.Millisecond)
	cancel()
	wg.Wait()
	require.EqualValues(t, 8, s.Report().Answers)
}

// TestPersistentSession: a command waits for a controller with a persistent session, and
// not for one with a clean session.
func TestPersistentSession(t *testing.T) {
	m := startMesh(t, 2)
	client := m.subscribe(t, newInbox())
	var mu sync.Mutex
	var done []string
	play := func() (stop func()) {
		s := m.simulator(Config{Interval: time.Hour, Persistent: 0.5, OnCommand: func(c CarriedOut) {
			mu.Lock()
			defer mu.Unlock()
			done = append(done, string(c.MAC)+" "+string(c.Body))
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := s.Run(ctx)
			require.NoError(t, err)
		})
		require.Eventually(t, func() bool { return s.Report().Connections == 2 }, 10*time.Second, time.Millisecond)
		return func() { cancel(); wg.Wait() }
	}
	send := func(body string) {
		for i := range m.controllers {
			publish(t, client, "cmnd/f2-"+string(m.controllers[i].MAC)+"/alarm-mode/J4/siren-1", body)
		}
	}
	play()()
	send("1") // while they are away
	stop := play()
	send("0")
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(done) == 3 }, 10*time.Second, time.Millisecond)
	stop()
	clean, kept := string(m.controllers[0].MAC), string(m.controllers[1].MAC)
	require.ElementsMatch(t, []string{clean + " 0", kept + " 1", kept + " 0"}, done)
}

func publish(t *testing.T, client mqtt.Client, name, body string) {
	t.Helper()
	if name == "" {
		return
	}
	token := client.Publish(name, 1, false, body)
	require.True(t, token.WaitTimeout(5*time.Second))
	require.NoError(t, token.Error())
}

// count returns how many messages of the topic contain the text.
func (i *inbox) count(name, text string) (n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for key := range i.seen {
		if at, body, _ := strings.Cut(key, "\n"); at == name && strings.Contains(body, text) {
			n++
		}
	}
	return n
}

// TestEachClassReachesTheSubscriber sends each class through a real broker.
func TestEachClassReachesTheSubscriber(t *testing.T) {
	m := startMesh(t, 1)
	received := newInbox()
	m.subscribe(t, received)
	for i, class := range classes {
		t.Run(class.name, func(t *testing.T) {
			before := received.len()
			s := m.simulator(Config{Messages: 1, Malformed: 30 * len(classes), Seed: uint64(i + 1)})
			s.budget = budget{good: 1}
			s.budget.next.Store(1) // only the messages that are pushed here are left
			d := newDevice(s, 0, nil)
			for n := range int64(20) {
				bad := newMalformed(s.cfg.Seed, n*int64(len(classes))+int64(i), d.firmware.mac)
				require.Equal(t, i, bad.class)
				d.payload = bad.body
				d.push(bad.topic, firstMalformed+tally(bad.class))
			}
			devices, err := s.prepare()
			require.NoError(t, err)
			d.tls, d.sim = devices[0].tls, s
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			d.run(ctx)
			require.NoError(t, ctx.Err(), fmt.Sprint(s.lastError.Load()))
			require.EqualValues(t, 20, s.Report().Malformed[class.name])
			require.Zero(t, s.Report().Retried)
			require.Eventually(t, func() bool { return received.len() == before+20 }, 5*time.Second, time.Millisecond)
		})
	}
}
