package bridge

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/batch"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// TestRetained: the copy of a retained message that the broker sends at each subscription is
// not an event. A new message with the retain flag is one.
func TestRetained(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	controller := r.publisher(t)
	l := r.start(t).ready(t)
	token := controller.Publish(door, 1, true, "kept")
	require.True(t, token.WaitTimeout(patience))
	r.awaitStored(t, 0, "kept")
	l.stop(t)
	for n := range 3 {
		l := r.start(t).ready(t)
		require.Eventually(t, func() bool { return testutil.ToFloat64(l.metrics.retained) == 1 }, patience, time.Millisecond)
		if n == 1 {
			l.kill()
			continue
		}
		l.stop(t)
	}
	got, _ := bodies(r.stored(t, 0))
	assert.Equal(t, []string{"kept"}, got)
	last, err := r.operator.Last(t.Context(), stream.DeadLetter, "f2.dead.bridge.retained.e4fd45f654be")
	require.NoError(t, err)
	assert.Contains(t, []string{"2", "3"}, last.Header.Get(deadletter.HeaderCount), "the killed one may not have come to count")
	assert.Empty(t, last.Data)
}

// TestPoison: large payloads of one sender on invalid topics delay no other messages, and
// their dead letters are limited.
func TestPoison(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.start(t).ready(t)
	poisoner, controller := r.publisher(t), r.publisher2(t)
	large := strings.Repeat("x", 1<<20)
	for n := range 40 {
		publish(t, poisoner, "cmnd/f2-e4fd45f654be/no-such-mode/J1/strike-1", large)
		publish(t, controller, door, fmt.Sprint(n))
	}
	r.awaitStored(t, 0, "39")
	require.Eventually(t, func() bool { return testutil.ToFloat64(l.metrics.deadLetters.WithLabelValues("bad_mode")) == 40 }, patience, time.Millisecond)
	last, err := r.operator.Last(t.Context(), stream.DeadLetter, "f2.dead.bridge.bad_mode.e4fd45f654be")
	require.NoError(t, err)
	assert.Equal(t, "40", last.Header.Get(deadletter.HeaderCount))
	assert.Equal(t, "1048576", last.Header.Get(deadletter.HeaderPayloadLength))
	info, err := r.operator.Info(t.Context(), stream.DeadLetter)
	require.NoError(t, err)
	assert.Less(t, info.State.Bytes, uint64(40*(deadletter.MaxPayload+2048)))
	l.stop(t)
}

// TestTooLargeForRAW: if the stream's limit is below the bridge's, large messages become dead
// letters and the others are stored.
func TestTooLargeForRAW(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	info, err := r.operator.Info(t.Context(), stream.Raw)
	require.NoError(t, err)
	l := r.start(t, func(c *Config, _ *life) { c.Linger = 50 * time.Millisecond }).ready(t)
	config := info.Config
	config.MaxMsgSize = 4096
	_, err = r.operator.JetStream().UpdateStream(t.Context(), config)
	require.NoError(t, err)
	controller := r.publisher(t)
	want := []string{"first"}
	controller.Publish(door, 1, false, "first")
	controller.Publish(door, 1, false, strings.Repeat("x", 5000))
	for i := range 2 * batch.Few { // they are one batch
		want = append(want, strconv.Itoa(i))
		controller.Publish(door, 1, false, strconv.Itoa(i))
	}
	publish(t, controller, door, "last")
	got, _ := bodies(r.awaitStored(t, 0, "last"))
	assert.Equal(t, append(want, "last"), got)
	require.Eventually(t, func() bool {
		return testutil.ToFloat64(l.metrics.deadLetters.WithLabelValues("payload_too_large")) == 1
	}, patience, time.Millisecond)
	l.stop(t)
}

// TestReady: the bridge is not ready while RAW refuses all messages, and returns why.
func TestReady(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.start(t).ready(t)
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.NoError(c, l.Ready(t.Context())) }, 10*time.Second, time.Millisecond)
	info, err := r.operator.Info(t.Context(), stream.Raw)
	require.NoError(t, err)
	config := info.Config
	for name, limit := range map[string]func(*jetstream.StreamConfig){
		"has stored nothing for": func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 },
		"is full":                func(c *jetstream.StreamConfig) { c.MaxBytes = 10_000 },
	} {
		full := config
		limit(&full)
		_, err = r.operator.JetStream().UpdateStream(t.Context(), full)
		require.NoError(t, err)
		controller := r.publisher(t)
		publish(t, controller, door, "1")
		publish(t, controller, door, "2")
		controller.Disconnect(100)
		require.Eventually(t, func() bool {
			err := l.Ready(t.Context())
			return err != nil && strings.Contains(err.Error(), name) && strings.Contains(err.Error(), "nats stream")
		}, patience, 10*time.Millisecond, name)
		_, err = r.operator.JetStream().UpdateStream(t.Context(), config)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return l.Ready(t.Context()) == nil }, patience, time.Millisecond)
	}
	l.stop(t)
}

// TestQueueIsBoundedInBytes: large messages wait for room, and closing the queue ends the
// wait.
func TestQueueIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	metrics := newMetrics(prometheus.NewRegistry())
	q := newQueue(10, 4<<20, metrics.waiting)
	body := bytes.Repeat([]byte("x"), 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	done := make(chan int, 1)
	go func() {
		n := 0
		for q.put(arrival{Message: &sent{topic: door, payload: body}}) {
			n++
		}
		done <- n
	}()
	require.Eventually(t, func() bool { return len(q.items) == 4 }, patience, time.Millisecond)
	for range 100 {
		a := <-q.items
		assert.LessOrEqual(t, testutil.ToFloat64(metrics.waiting), float64(4<<20+10<<10))
		q.release(a.size)
	}
	q.close()
	assert.GreaterOrEqual(t, <-done, 100)
	require.NoError(t, ctx.Err())
}

// TestLatency stores 4,000 events over a connection to NATS with 25 ms of latency: first all
// new, then all copies, then half of each. It logs the rates. The limit only catches a bridge
// that stores copies one by one.
func TestLatency(t *testing.T) {
	t.Parallel()
	const n = 4000
	rate := func(copies int) float64 {
		r := newRig(t)
		controller := r.publisher(t)
		l := r.start(t).ready(t)
		l.mqtt.noAcks.Store(true)
		for i := range copies {
			controller.Publish(door, 1, false, fmt.Sprint(i))
		}
		if copies > 0 {
			r.awaitStored(t, 0, fmt.Sprint(copies-1))
		}
		l.kill()
		for i := copies; i < n-1; i++ {
			controller.Publish(door, 1, false, fmt.Sprint(i))
		}
		publish(t, controller, door, fmt.Sprint(n-1))
		l = r.start(t, func(c *Config, l *life) {
			l.nats.latency.Store(int64(25 * time.Millisecond))
			c.Linger = 5 * time.Millisecond
		})
		require.Eventually(t, func() bool { return testutil.ToFloat64(l.metrics.received) > 0 }, patience, time.Millisecond)
		begin := time.Now()
		require.Eventually(t, func() bool {
			return testutil.ToFloat64(l.metrics.stored)+testutil.ToFloat64(l.metrics.duplicates) >= n
		}, patience, time.Millisecond)
		took := time.Since(begin)
		assert.InDelta(t, copies, testutil.ToFloat64(l.metrics.duplicates), 0)
		got, _ := bodies(r.stored(t, 0))
		assert.Len(t, got, n)
		return n / took.Seconds()
	}
	none, half := rate(0), rate(n/2)
	t.Logf("messages a second at 50 ms of round trip: %.0f without copies, %.0f with %d copies of %d", none, half, n/2, n)
	assert.Greater(t, half, none/20)
}
