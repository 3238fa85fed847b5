package stream

import (
	"context"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

// makeRAW makes the decoder's stream and consumer, except that the server waits so
// long for an acknowledgement that nothing comes again by itself during a test.
func makeRAW(t *testing.T, server *natsserver.Server) {
	t.Helper()
	const name = "consumer_raw_decoder.json"
	data, err := fs.ReadFile(natsfiles.Files, name)
	require.NoError(t, err)
	text := strings.Replace(string(data), `"ack_wait": 10000000000,`, `"ack_wait": 3600000000000,`, 1)
	require.NotEqual(t, string(data), text)
	stream, err := fs.ReadFile(natsfiles.Files, "stream_raw.json")
	require.NoError(t, err)
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator,
		fstest.MapFS{name: {Data: []byte(text)}, "stream_raw.json": {Data: stream}})
	_, err = operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
}

// consume is one process of the decoder. stop ends it as a crash does.
func consume(t *testing.T, server *natsserver.Server) (consumer jetstream.Consumer, messages <-chan jetstream.Msg, stop func()) {
	t.Helper()
	return consumeBy(t, server, (*Client).Consume)
}

type consumeFunc func(*Client, context.Context, jetstream.Consumer, int, int) (<-chan jetstream.Msg, func(), error)

func consumeBy(t *testing.T, server *natsserver.Server, by consumeFunc) (consumer jetstream.Consumer, messages <-chan jetstream.Msg, stop func()) {
	t.Helper()
	c, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Decoder, natsfiles.Files)
	consumer, err := c.Open(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	messages, _, err = by(c, ctx, consumer, 100, MinPrefetchBytes)
	require.NoError(t, err)
	return consumer, messages, func() {
		cancel()
		for range messages { // closed by Consume
		}
		natsservertest.Close(c.nc)
	}
}

// take receives n messages.
func take(t *testing.T, messages <-chan jetstream.Msg, n int) (taken []jetstream.Msg, numbers []string) {
	t.Helper()
	timeout := time.After(patience)
	for range n {
		select {
		case m := <-messages:
			taken, numbers = append(taken, m), append(numbers, string(m.Data()))
		case <-timeout:
			t.Fatalf("only %d of %d messages came", len(taken), n)
		}
	}
	return taken, numbers
}

func requireSilence(t *testing.T, messages <-chan jetstream.Msg) {
	t.Helper()
	select {
	case m := <-messages:
		t.Fatalf("message %s came", m.Data())
	case <-time.After(moment):
	}
}

func TestRewind(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	makeRAW(t, server)
	bridge, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Bridge, natsfiles.Files)
	require.NoError(t, bridge.Wait(t.Context(), "RAW"))
	_, err := bridge.Store(t.Context(), "RAW", numbered("f2.raw.test", 0, 20))
	require.NoError(t, err)
	observer, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Decoder, natsfiles.Files)

	consumer, messages, stop := consume(t, server)
	defer stop()
	taken, numbers := take(t, messages, 20)
	require.Equal(t, sequence(0, 20), numbers)
	for _, m := range taken[:5] {
		require.NoError(t, m.DoubleAck(t.Context()))
	}

	// While the process lives it keeps its messages.
	require.NoError(t, observer.Rewind(t.Context(), consumer))
	info, err := consumer.Info(t.Context())
	require.NoError(t, err)
	require.Positive(t, info.NumWaiting)
	assert.Equal(t, 15, info.NumAckPending)
	requireSilence(t, messages)

	// Without Rewind the next process gets new messages only.
	stop()
	requireNobodyPulls(t, observer)
	_, err = bridge.Store(t.Context(), "RAW", numbered("f2.raw.test", 20, 25))
	require.NoError(t, err)
	_, messages, stop = consume(t, server)
	defer stop()
	_, numbers = take(t, messages, 5)
	assert.Equal(t, sequence(20, 25), numbers)
	requireSilence(t, messages)

	// With Rewind every message comes that is not acknowledged.
	stop()
	requireNobodyPulls(t, observer)
	consumer, messages, stop = consumeBy(t, server, (*Client).ConsumeRewinding)
	defer stop()
	taken, numbers = take(t, messages, 20)
	assert.Equal(t, sequence(5, 25), numbers)
	for _, m := range taken {
		require.NoError(t, m.DoubleAck(t.Context()))
	}
	info, err = consumer.Info(t.Context())
	require.NoError(t, err)
	assert.Zero(t, info.NumAckPending)
	assert.EqualValues(t, 25, info.AckFloor.Stream)
}

// requireNobodyPulls waits until the server has seen that the process is gone.
func requireNobodyPulls(t *testing.T, c *Client) {
	t.Helper()
	consumer, err := c.Open(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.NumWaiting == 0
	}, patience, 10*time.Millisecond)
}

func TestDrainContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		parent, end := context.WithCancel(context.WithValue(t.Context(), t, "kept"))
		draining, cancel := DrainContext(parent, time.Minute)
		defer cancel()
		assert.Equal(t, "kept", draining.Value(t))
		time.Sleep(time.Hour)
		require.NoError(t, draining.Err(), "the parent lives")
		end()
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		require.NoError(t, draining.Err(), "what is at work may finish")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.ErrorIs(t, draining.Err(), context.Canceled)
	})
	draining, cancel := DrainContext(t.Context(), time.Hour)
	require.NoError(t, draining.Err())
	cancel()
	require.ErrorIs(t, draining.Err(), context.Canceled)
}

// TestConsumeIsBoundedByBytes has a reader that stands still before messages that
// are all within the limits: what waits in memory is counted in bytes. Each comes
// once, and in order, although the server ends a request at each bound.
func TestConsumeIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	const total, size = 400, 60 << 10 // 24 MiB
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	makeRAW(t, server)
	messages := numbered("f2.raw.test", 0, total)
	for _, m := range messages {
		m.Data = append(append(m.Data, ' '), make([]byte, size)...)
	}
	_, err := operator.Store(t.Context(), "RAW", messages)
	require.NoError(t, err)

	for name, test := range map[string]struct {
		maxBytes, atLeast, atMost int
	}{
		"the least":   {1, MinPrefetchBytes / 2 / size, 2*MinPrefetchBytes/size + handedOver},
		"the control": {total * 2 * size, total, total},
	} {
		makeRAW(t, server)
		c, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Decoder, natsfiles.Files)
		consumer, err := c.Open(t.Context(), "RAW", "decoder")
		require.NoError(t, err)
		c.pullWait = 5 * time.Second // the control has all in one pull, also on a slow machine
		out, release, err := c.Consume(t.Context(), consumer, 2*total, test.maxBytes)
		require.NoError(t, err)
		delivered := 0
		require.Eventually(t, func() bool {
			info, err := consumer.Info(t.Context())
			require.NoError(t, err)
			before := delivered
			delivered = info.NumAckPending
			return delivered >= test.atLeast && delivered == before
		}, patience, 100*time.Millisecond, name)
		assert.LessOrEqual(t, delivered, test.atMost, name)

		for i := range total {
			m := <-out
			number, _, _ := strings.Cut(string(m.Data()), " ")
			require.Equal(t, strconv.Itoa(i), number, name)
		}
		release()
		natsservertest.Close(c.nc)
		require.NoError(t, operator.js.DeleteConsumer(t.Context(), "RAW", "decoder"))
	}
}

// TestForeignSubject has messages of another subject on a stream, of a consumer without
// a filter: they are refused, and do not come again.
func TestForeignSubject(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	_, err := operator.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "RAW", Subjects: []string{"f2.raw.>", "f2.forged.>"}})
	require.NoError(t, err)
	consumer, err := operator.js.CreateConsumer(t.Context(), "RAW", jetstream.ConsumerConfig{
		Durable: "decoder", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour,
	})
	require.NoError(t, err)
	for _, subject := range []string{"f2.raw.1", "f2.forged.2", "f2.raw.3"} {
		_, err := operator.js.Publish(t.Context(), subject, []byte(subject))
		require.NoError(t, err)
	}
	_, messages, stop := consume(t, server)
	defer stop()
	taken, subjects := take(t, messages, 2)
	assert.Equal(t, []string{"f2.raw.1", "f2.raw.3"}, subjects)
	for _, m := range taken {
		require.NoError(t, m.Ack())
	}
	require.Eventually(t, func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.AckFloor.Stream == 3
	}, patience, 10*time.Millisecond)

	_, err = operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	info, err := consumer.Info(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "f2.raw.>", info.Config.FilterSubject, "setup has the server not even send them")
}
