package stream

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

// flow is a bridge that stores and a decoder that takes and acknowledges, each as
// fast as it can.
type flow struct {
	bridge, decoder *Client
	credential      *secrettest.FixedSource // the decoder's
	stop            context.CancelFunc
	stored          chan int
	taken           chan []string
}

func startFlow(t *testing.T) *flow {
	t.Helper()
	cfg := natsservertest.Config(t)
	cfg.Passwords[credential.Alternate(natsserver.Decoder)] = "other"
	server := natsservertest.Start(t, cfg)
	f := &flow{stored: make(chan int, 1), taken: make(chan []string, 1)}
	makeRAW(t, server)
	f.bridge, _ = newClient(t, Config{InProcess: server.InProcess()}, natsserver.Bridge, natsfiles.Files)
	require.NoError(t, f.bridge.Wait(t.Context(), "RAW"))

	c, source := secrettest.Changing(t, natsserver.Decoder, natsservertest.Password(natsserver.Decoder), 10*time.Millisecond)
	f.credential = source
	nc := connect(t, Config{URL: server.URL(), CAFile: cfg.CAFile}, natsserver.Decoder, c, new(journal))
	require.NoError(t, WaitConnected(t.Context(), nc))
	var err error
	f.decoder, err = NewClient(nc, natsfiles.Files, f.bridge.log)
	require.NoError(t, err)
	consumer, err := f.decoder.Open(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	consuming, stopConsuming := context.WithCancel(t.Context())
	messages, _, err := f.decoder.Consume(consuming, consumer, 100, MinPrefetchBytes)
	require.NoError(t, err)

	storing, stopStoring := context.WithCancel(t.Context())
	go f.store(storing)
	go f.take(messages)
	f.stop = func() { stopStoring(); time.AfterFunc(moment, stopConsuming) }
	t.Cleanup(stopConsuming)
	t.Cleanup(stopStoring)
	return f
}

func (f *flow) store(ctx context.Context) {
	n := 0
	for ctx.Err() == nil {
		if _, err := f.bridge.Store(context.WithoutCancel(ctx), "RAW", numbered("f2.raw.test", n, n+7)); err != nil {
			panic(err) // cannot be: it never gives up
		}
		n += 7
	}
	f.stored <- n
}

func (f *flow) take(messages <-chan jetstream.Msg) {
	var numbers []string
	for m := range messages {
		numbers = append(numbers, string(m.Data()))
		_ = f.decoder.Acknowledge(context.Background(), m)
	}
	f.taken <- numbers
}

// TestReconnect moves a consumer to its other user and back while it is at work:
// each message comes once, although the server would wait an hour before it
// delivers again what got lost on the way.
func TestReconnect(t *testing.T) {
	t.Parallel()
	f := startFlow(t)
	for i := range 20 {
		user, password := natsserver.Decoder, natsservertest.Password(natsserver.Decoder)
		if i%2 == 0 {
			user, password = credential.Alternate(user), "other"
		}
		f.credential.Set(user, password)
		asked := f.credential.Asked()
		require.Eventually(t, func() bool { return f.credential.Asked() > asked }, patience, time.Millisecond)
		before := f.decoder.nc.Stats().Reconnects
		require.NoError(t, f.decoder.Reconnect(t.Context()))
		require.Greater(t, f.decoder.nc.Stats().Reconnects, before)
	}
	f.stop()
	stored, taken := sequence(0, <-f.stored), <-f.taken
	assert.Len(t, taken, len(stored))
	assert.Equal(t, set(stored), set(taken))
}

func set(numbers []string) map[string]bool {
	all := make(map[string]bool, len(numbers))
	for _, n := range numbers {
		all[n] = true
	}
	return all
}

// TestReconnectBare is the control: without Reconnect's care something gets lost,
// sooner or later.
func TestReconnectBare(t *testing.T) {
	t.Parallel()
	for range 10 {
		f := startFlow(t)
		for range 20 {
			require.NoError(t, f.decoder.nc.ForceReconnect())
			require.NoError(t, WaitConnected(t.Context(), f.decoder.nc))
			time.Sleep(50 * time.Millisecond)
		}
		f.stop()
		if stored, taken := <-f.stored, set(<-f.taken); len(taken) < stored {
			return
		}
	}
	t.Error("two hundred bare reconnects lost nothing")
}

// TestReconnectWithoutAServer does not wait for ever.
func TestReconnectWithoutAServer(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	c, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, testFiles(-1))
	natsservertest.Stop(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	require.ErrorIs(t, c.Reconnect(ctx), context.DeadlineExceeded)
	natsservertest.Close(c.nc)
	require.Error(t, c.Reconnect(t.Context()))
}

// TestReconnectWhileNothingIsConsumed is a service that is stuck: what it has not taken
// stays, and comes behind the change.
func TestReconnectWhileNothingIsConsumed(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	makeRAW(t, server)
	bridge, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Bridge, natsfiles.Files)
	require.NoError(t, bridge.Wait(t.Context(), "RAW"))
	_, err := bridge.Store(t.Context(), "RAW", numbered("f2.raw.test", 0, 500))
	require.NoError(t, err)
	decoder, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Decoder, natsfiles.Files)
	consumer, err := decoder.Open(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	messages, release, err := decoder.Consume(t.Context(), consumer, 50, MinPrefetchBytes)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(messages) == cap(messages) }, patience, time.Millisecond)

	started := time.Now()
	require.NoError(t, decoder.Reconnect(t.Context()))
	assert.GreaterOrEqual(t, time.Since(started), quietTimeout, "it gave the service time")
	_, numbers := take(t, messages, 500)
	assert.Equal(t, sequence(0, 500), numbers)
	release()
}
