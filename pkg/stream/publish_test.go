package stream

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream/batch"
)

// newTestStream is a client whose stream TEST holds at most limit messages.
func newTestStream(t *testing.T, limit int) (*Client, *journal) {
	t.Helper()
	server := natsservertest.Start(t, natsservertest.Config(t))
	c, j := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, testFiles(limit))
	require.NoError(t, c.Ensure(t.Context(), "TEST"))
	return c, j
}

func TestBatchLength(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		count, size int
		want        int
	}{
		{"none", 0, 1, 0},
		{"a few go one by one", batch.Few, 1, 1},
		{"more than a few", batch.Few + 1, 1, batch.Few + 1},
		{"as many as the server takes", MaxBatch, 1, MaxBatch},
		{"one more", MaxBatch + 1, 1, MaxBatch},
		{"bytes that just fit", 16, maxBatchBytes / 16, 16},
		{"a byte too many each", 16, maxBatchBytes/16 + 1, 15},
		{"one huge message goes alone", 1, maxBatchBytes + 1, 1},
		{"huge messages go one by one", batch.Few + 1, maxBatchBytes + 1, 1},
	} {
		messages := make([]*nats.Msg, test.count)
		for i := range messages {
			messages[i] = &nats.Msg{Data: make([]byte, test.size)}
		}
		assert.Equal(t, test.want, batchLength(messages), test.name)
	}
}

func TestStoreKeepsOrderOverBatches(t *testing.T) {
	t.Parallel()
	const n = 2500
	server := natsservertest.Start(t, natsservertest.Config(t))
	makeRAW(t, server)
	bridge, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Bridge, natsfiles.Files)
	require.NoError(t, bridge.Wait(t.Context(), "RAW"))
	duplicates, err := bridge.Store(t.Context(), "RAW", numbered("f2.raw.test", 0, n))
	require.NoError(t, err)
	assert.Zero(t, duplicates)
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	requireStored(t, operator, "RAW", n)
}

func TestStoreLeavesOutWhatIsStored(t *testing.T) {
	t.Parallel()
	c, _ := newTestStream(t, -1)
	messages := numbered("test", 0, 20)
	_, err := c.Store(t.Context(), "TEST", append(append([]*nats.Msg{}, messages[3]), messages[7:9]...))
	require.NoError(t, err)

	// The server refuses the whole batch: without a second way nothing is stored.
	_, err = c.atomic(t.Context(), messages)
	var apiErr *jetstream.APIError
	require.ErrorAs(t, err, &apiErr)
	require.Equal(t, errorCodeDuplicate, apiErr.ErrorCode)
	require.Equal(t, []string{"3", "7", "8"}, contents(t, c, "TEST"))

	duplicates, err := c.Store(t.Context(), "TEST", messages)
	require.NoError(t, err)
	assert.Equal(t, 3, duplicates)
	want := append([]string{"3", "7", "8"}, sequence(0, 3)...)
	want = append(append(want, sequence(4, 7)...), sequence(9, 20)...)
	assert.Equal(t, want, contents(t, c, "TEST"))
}

// With a message that is stored already the batch goes one by one, and then no
// later message may take the room that an earlier one did not find.
func TestStoreContinuesWhenAFullStreamIsEnlarged(t *testing.T) {
	t.Parallel()
	const n, large = 12, 3
	for _, test := range []struct {
		name      string
		known     int
		full      func(*jetstream.StreamConfig)
		meanwhile int
	}{
		{"in a batch", 0, func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs = 5 }, 0},
		{"one by one", 1, func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs = 5 }, 5},
		{"a large one before small ones", 1, func(cfg *jetstream.StreamConfig) { cfg.MaxBytes = 8 << 10 }, large},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, j := newTestStream(t, -1)
			messages := numbered("test", 0, n)
			messages[large].Header.Set("Padding", strings.Repeat("x", 8<<10))
			_, err := c.Store(t.Context(), "TEST", messages[:test.known])
			require.NoError(t, err)
			roomy := configOf(t, c, "TEST")
			full := roomy
			test.full(&full)
			_, err = c.js.UpdateStream(t.Context(), full)
			require.NoError(t, err)

			done := make(chan error, 1)
			go func() {
				_, err := c.Store(t.Context(), "TEST", messages)
				done <- err
			}()
			require.Eventually(t, func() bool { return j.has("stream did not store") }, patience, time.Millisecond)
			requireStored(t, c, "TEST", test.meanwhile)
			require.Empty(t, done)
			_, err = c.js.UpdateStream(t.Context(), roomy)
			require.NoError(t, err)
			require.NoError(t, <-done)
			requireStored(t, c, "TEST", n)
		})
	}
}

func TestStoreGivesUpOnlyWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	c, j := newTestStream(t, 5)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Store(ctx, "TEST", numbered("test", 0, 12))
		done <- err
	}()
	require.Eventually(t, func() bool { return j.count("stream did not store") >= 3 || len(done) > 0 }, patience, time.Millisecond)
	require.Empty(t, done, "Store gave up")
	cancel()
	require.Error(t, <-done)
	require.Empty(t, contents(t, c, "TEST"), "nothing of a batch that does not fit")
}

func TestStoreSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	cfg := natsservertest.Config(t)
	server := natsservertest.Start(t, cfg)
	c, j := newClient(t, Config{URL: server.URL(), CAFile: cfg.CAFile}, natsserver.Operator, testFiles(-1))
	require.NoError(t, c.Ensure(t.Context(), "TEST"))

	// Store is at work from before the stop until after the start.
	stored := make(chan int, 1)
	go func() {
		n := 0
		for ; !j.has("stream did not store"); n += MaxBatch {
			if _, err := c.Store(t.Context(), "TEST", numbered("test", n, n+MaxBatch)); !assert.NoError(t, err) {
				break
			}
		}
		stored <- n
	}()
	require.Eventually(t, func() bool {
		s, err := c.js.Stream(t.Context(), "TEST")
		return err == nil && s.CachedInfo().State.Msgs > 0
	}, patience, time.Millisecond)
	natsservertest.Stop(t, server)
	require.Eventually(t, func() bool { return j.has("stream did not store") }, patience, time.Millisecond)
	require.Empty(t, stored, "Store waits for the server")
	cfg.Port = server.Port()
	natsservertest.Start(t, cfg)
	n := <-stored
	require.Positive(t, n)
	requireStored(t, c, "TEST", n)
}

// deafWire is a connection to the server that once, when told so, breaks
// instead of delivering an answer: what was sent has arrived, and the sender
// does not know.
type deafWire struct {
	nats.InProcessConnProvider
	deaf atomic.Bool
}

type deafConn struct {
	net.Conn
	wire *deafWire
}

func (w *deafWire) InProcessConn() (net.Conn, error) {
	conn, err := w.InProcessConnProvider.InProcessConn()
	return &deafConn{conn, w}, err
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.Contains(p[:n], []byte("MSG ")) && c.wire.deaf.CompareAndSwap(true, false) {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// The id of a message is what makes a repeated one harmless. The control shows
// that the answer was indeed lost after the storing.
func TestStoreAfterALostResponse(t *testing.T) {
	t.Parallel()
	const n = 50
	server := natsservertest.Start(t, natsservertest.Config(t))
	wire := &deafWire{InProcessConnProvider: server.InProcess()}
	c, _ := newClient(t, Config{InProcess: wire}, natsserver.Operator, testFiles(-1))
	for _, withIDs := range []bool{true, false} {
		_ = c.js.DeleteStream(t.Context(), "TEST")
		require.NoError(t, c.Ensure(t.Context(), "TEST"))
		messages := numbered("test", 0, n)
		for _, m := range messages {
			if !withIDs {
				m.Header = nats.Header{}
			}
		}
		wire.deaf.Store(true)
		duplicates, err := c.Store(t.Context(), "TEST", messages)
		require.NoError(t, err)
		if withIDs {
			assert.Equal(t, n, duplicates)
			requireStored(t, c, "TEST", n)
		} else {
			assert.Equal(t, append(sequence(0, n), sequence(0, n)...), contents(t, c, "TEST"))
		}
	}
}

// A wait before the next attempt ends when a lost connection comes back.
func TestPauseEndsWithTheOutage(t *testing.T) {
	t.Parallel()
	cfg := natsservertest.Config(t)
	server := natsservertest.Start(t, cfg)
	c, _ := newClient(t, Config{URL: server.URL(), CAFile: cfg.CAFile}, natsserver.Operator, testFiles(-1))
	require.Eventually(t, c.nc.IsConnected, patience, time.Millisecond)
	require.False(t, c.pause(t.Context(), time.Millisecond), "the connection is there")

	natsservertest.Stop(t, server)
	require.Eventually(t, func() bool { return !c.nc.IsConnected() }, patience, time.Millisecond)
	require.False(t, c.pause(t.Context(), time.Millisecond), "the outage goes on")
	ended := make(chan bool, 1)
	go func() { ended <- c.pause(t.Context(), time.Hour) }()
	cfg.Port = server.Port()
	natsservertest.Start(t, cfg)
	select {
	case connected := <-ended:
		assert.True(t, connected)
	case <-time.After(patience):
		require.Fail(t, "the wait goes on")
	}
}
