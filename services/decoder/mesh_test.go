package decoder

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// TestOneControllerWaits: the metadata of one controller cannot be read. The others do not
// wait, and its messages are decoded in order when the metadata can be read.
func TestOneControllerWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, 21)
	all := macs(r.fleet)
	one, others := all[0], all[1:]
	d := r.start(t)
	r.send(t, all...)
	r.settled(t, d) // a slow machine may park some of these, since it has read no metadata yet
	parked := testutil.ToFloat64(d.metrics.parked)
	r.send(t, all...)
	r.acknowledged(t)
	require.InDelta(t, parked, testutil.ToFloat64(d.metrics.parked), 0, "the control: nothing is parked without the fault")
	require.NoError(t, r.account(t, one))

	r.breakRow(t, one)
	r.exec(t, "SELECT pg_notify($1, $2)", channel, string(one))
	require.Eventually(t, func() bool { return !d.cache.entries.Contains(one) }, long, 5*time.Millisecond)
	for range 20 {
		r.send(t, all...)
	}
	r.acknowledged(t)
	for _, mac := range others {
		require.NoError(t, r.account(t, mac), mac)
	}
	require.Error(t, r.account(t, one), "the control: its messages wait")
	assert.InDelta(t, parked+20, testutil.ToFloat64(d.metrics.parked), 0)
	assert.Equal(t, 1, d.parking.len())
	require.NoError(t, d.Ready(t.Context()), "a waiting controller does not make the decoder unready")

	r.repair(t, one)
	r.send(t, one)
	r.settled(t, d)
	r.send(t, one)
	r.acknowledged(t)
	require.NoError(t, r.account(t, one))
	require.Len(t, r.all(t, stream.Decoded, "f2.decoded."+string(one)+".>"), 24, "each once")
	require.Eventually(t, func() bool { return r.state(t, stream.Parked).Msgs == 0 }, long, 50*time.Millisecond, "the removal expires")
}

// TestKill kills the decoder again and again while controllers send, and while the metadata of
// one of them can and cannot be read.
func TestKill(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	one, other := r.fleet[0].MAC, r.fleet[1].MAC
	d := r.start(t)
	r.send(t, one)
	r.acknowledged(t)
	const rounds = 15
	var sending sync.WaitGroup
	over := make(chan struct{})
	sending.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(2 * time.Millisecond):
				r.send(t, one, other)
			}
		}
	})
	random := rand.New(rand.NewPCG(1, 2))
	parked := 0
	for round := range rounds {
		if round%2 == 0 {
			r.breakRow(t, one)
			r.exec(t, "SELECT pg_notify($1, $2)", channel, string(one))
		} else {
			r.repair(t, one)
		}
		work := func() float64 { return testutil.ToFloat64(d.metrics.parked) + testutil.ToFloat64(d.metrics.decoded) }
		enough, deadline := float64(random.IntN(50)), time.Now().Add(5*time.Second)
		for work() < enough && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond) // the moment of the crash is any
		parked += int(testutil.ToFloat64(d.metrics.parked))
		d.kill()
		d = r.start(t)
	}
	close(over)
	sending.Wait()
	r.exec(t, "DELETE FROM faults")
	r.exec(t, "SELECT pg_notify($1, '*')", channel)
	r.settled(t, d)
	assert.Positive(t, parked, "the control: there was something to lose")
	for _, mac := range []topic.MAC{one, other} {
		require.NoError(t, r.account(t, mac), mac)
	}
	t.Logf("%d messages, %d of them parked before a kill", r.sent.Load(), parked)
}

// TestStart starts with every state that a crash can leave behind.
func TestStart(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	one := r.fleet[0].MAC
	d := r.start(t)
	r.send(t, one)
	r.settled(t, d)
	incarnation := d.incarnation
	d.stop()
	// put stores the messages of RAW from sequence from on where a decoder before did.
	put := func(t *testing.T, from, to uint64, where string) {
		t.Helper()
		s, err := r.js.Stream(t.Context(), stream.Raw)
		require.NoError(t, err)
		var messages []*nats.Msg
		for sequence := from; sequence <= to; sequence++ {
			raw, err := s.GetMsg(t.Context(), sequence)
			require.NoError(t, err)
			m, letter := take(raw.Subject, raw.Header, raw.Data, event.PlaceID(incarnation, sequence), raw.Time)
			require.Nil(t, letter)
			if where == stream.Parked {
				messages = append(messages, parkedMessage(&m))
				continue
			}
			var out result
			var own worker
			d.decodeMessage(&m, &controller{id: 1}, &own, &out)
			messages = append(messages, out.decoded)
		}
		_, err = r.client.Store(t.Context(), where, messages)
		require.NoError(t, err)
	}
	acknowledge := func(t *testing.T, n int) {
		t.Helper()
		consumer, err := r.js.Consumer(t.Context(), stream.Raw, stage)
		require.NoError(t, err)
		batch, err := consumer.Fetch(n)
		require.NoError(t, err)
		for m := range batch.Messages() {
			require.NoError(t, m.DoubleAck(t.Context()))
		}
		require.NoError(t, batch.Error())
	}
	remove := func(t *testing.T) {
		t.Helper()
		last, err := r.client.Last(t.Context(), stream.Parked, parkedPrefix+string(one))
		require.NoError(t, err)
		_, err = r.js.PublishMsg(t.Context(), removal(one, last.Sequence))
		require.NoError(t, err)
	}
	for _, test := range []struct {
		name  string
		crash func(from, to uint64)
	}{
		{"nothing done", func(uint64, uint64) {}},
		{"parked, not acknowledged", func(from, to uint64) { put(t, from, to, stream.Parked) }},
		{"parked and acknowledged", func(from, to uint64) {
			put(t, from, to, stream.Parked)
			acknowledge(t, int(to-from)+1)
		}},
		{"some parked and acknowledged", func(from, _ uint64) {
			put(t, from, from+2, stream.Parked)
			acknowledge(t, 2)
		}},
		{"some decoded since", func(from, to uint64) {
			put(t, from, to, stream.Parked)
			acknowledge(t, int(to-from)+1)
			put(t, from, from+2, stream.Decoded)
		}},
		{"all decoded since", func(from, to uint64) {
			put(t, from, to, stream.Parked)
			acknowledge(t, int(to-from)+1)
			put(t, from, to, stream.Decoded)
		}},
		{"removed, not acknowledged", func(from, to uint64) {
			put(t, from, to, stream.Parked)
			put(t, from, to, stream.Decoded)
			remove(t)
		}},
		{"parked again behind a removal", func(from, to uint64) {
			put(t, from, from+1, stream.Parked)
			put(t, from, from+1, stream.Decoded)
			remove(t)
			put(t, from+2, to, stream.Parked)
			acknowledge(t, int(to-from)+1)
		}},
	} {
		from := r.state(t, stream.Raw).LastSeq + 1
		for range 6 {
			r.send(t, one)
		}
		test.crash(from, from+5)
		d := r.start(t)
		r.send(t, one)
		r.settled(t, d)
		require.NoError(t, r.account(t, one), test.name)
		d.stop()
	}
}
