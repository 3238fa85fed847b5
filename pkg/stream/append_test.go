package stream

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

// withoutIDs are numbered messages without an id.
func withoutIDs(subject string, from, to int) []*nats.Msg {
	messages := numbered(subject, from, to)
	for _, m := range messages {
		m.Header = nats.Header{"Number": {string(m.Data)}}
	}
	return messages
}

func places(from, to uint64) (all []uint64) {
	for ; from <= to; from++ {
		all = append(all, from)
	}
	return all
}

func TestAppend(t *testing.T) {
	t.Parallel()
	c, _ := newTestStream(t, -1)
	a := c.NewAppender("TEST", 0)
	for _, span := range [][2]int{{0, 1}, {1, 2501}, {2501, 2502}, {2502, 2502}} {
		sequences, err := a.Append(t.Context(), withoutIDs("test", span[0], span[1]))
		require.NoError(t, err)
		assert.Len(t, sequences, span[1]-span[0])
		for i, sequence := range sequences {
			require.EqualValues(t, span[0]+i+1, sequence)
		}
	}
	requireStored(t, c, "TEST", 2502)
}

// TestAppendAfterALostResponse: what the server has stored is found there. The
// control is that Store, which does not look, has it twice.
func TestAppendAfterALostResponse(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 50} {
		server := natsservertest.Start(t, natsservertest.Config(t))
		wire := &deafWire{InProcessConnProvider: server.InProcess()}
		c, _ := newClient(t, Config{InProcess: wire}, natsserver.Operator, testFiles(-1))
		require.NoError(t, c.Ensure(t.Context(), "TEST"))
		a := c.NewAppender("TEST", 0)
		wire.deaf.Store(true)
		sequences, err := a.Append(t.Context(), withoutIDs("test", 0, n))
		require.NoError(t, err)
		require.False(t, wire.deaf.Load(), "the control")
		assert.Equal(t, places(1, uint64(n)), sequences)
		_, err = a.Append(t.Context(), withoutIDs("test", n, n+3))
		require.NoError(t, err)
		requireStored(t, c, "TEST", n+3)

		wire.deaf.Store(true)
		_, err = c.Store(t.Context(), "TEST", withoutIDs("test", 0, n))
		require.NoError(t, err)
		assert.Len(t, contents(t, c, "TEST"), n+3+2*n, "the control")
	}
}

// TestAppendAfterAPartOfABatch: what the server has stored of a batch is found, and the rest
// is stored after it.
func TestAppendAfterAPartOfABatch(t *testing.T) {
	t.Parallel()
	for _, part := range []int{1, 7, 19} {
		c, _ := newTestStream(t, -1)
		a := c.NewAppender("TEST", 0)
		_, err := c.Store(t.Context(), "TEST", withoutIDs("test", 0, part))
		require.NoError(t, err)
		sequences, err := a.Append(t.Context(), withoutIDs("test", 0, 20))
		require.NoError(t, err)
		assert.Equal(t, places(1, 20), sequences)
		requireStored(t, c, "TEST", 20)
	}
}

// TestAppendWhileALimitChanges: a limit that comes in the middle of a commit cuts the batch.
func TestAppendWhileALimitChanges(t *testing.T) {
	t.Parallel()
	c, _ := newTestStream(t, -1)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			s, err := c.JetStream().Stream(ctx, "TEST")
			if err != nil {
				continue
			}
			config := s.CachedInfo().Config
			for _, limit := range []int64{int64(s.CachedInfo().State.Msgs) + 300, -1} {
				config.MaxMsgs = limit
				_, _ = c.JetStream().UpdateStream(ctx, config)
				time.Sleep(2 * time.Millisecond)
			}
		}
	}()
	a := c.NewAppender("TEST", 0)
	n := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); n += 1000 {
		sequences, err := a.Append(t.Context(), withoutIDs("test", n, n+1000))
		require.NoError(t, err)
		require.Equal(t, places(uint64(n+1), uint64(n+1000)), sequences)
	}
	stop()
	<-done
	requireStored(t, c, "TEST", n)
}

// TestAppendAfterAnotherWriter: what somebody else has stored is reported, and nothing is
// stored in front of the decision what to do about it.
func TestAppendAfterAnotherWriter(t *testing.T) {
	t.Parallel()
	c, _ := newTestStream(t, -1)
	a := c.NewAppender("TEST", 0)
	for _, n := range []int{1, 20} {
		before := uint64(len(contents(t, c, "TEST")))
		for i := range 3 {
			_, err := c.Store(t.Context(), "TEST", withoutIDs("test", 1000+i, 1001+i))
			require.NoError(t, err)
		}
		messages := withoutIDs("test", 0, n)
		sequences, err := a.Append(t.Context(), messages)
		var overtaken *OvertakenError
		require.ErrorAs(t, err, &overtaken)
		assert.Empty(t, sequences)
		assert.Equal(t, OvertakenError{"TEST", before + 1, before + 3}, *overtaken)
		sequences, err = a.Append(t.Context(), messages)
		require.NoError(t, err)
		assert.Equal(t, places(before+4, before+3+uint64(n)), sequences)
	}
}

// TestAppendLateAttempt: an attempt that the server reads only after its repetition
// is refused, and one that it reads before it makes the repetition needless.
func TestAppendLateAttempt(t *testing.T) {
	t.Parallel()
	c, _ := newTestStream(t, -1)
	late := c.NewAppender("TEST", 0) // as the attempt was sent
	a := c.NewAppender("TEST", 0)
	messages := withoutIDs("test", 0, 20)
	_, err := a.Append(t.Context(), messages)
	require.NoError(t, err)
	for _, attempt := range [][]*nats.Msg{withoutIDs("test", 100, 120), withoutIDs("test", 100, 101)} {
		attempt[0].Header.Set(jetstream.ExpectedLastSeqHeader, "0")
		require.ErrorContains(t, late.attempt(t.Context(), attempt), "wrong last sequence")
	}
	requireStored(t, c, "TEST", 20)
	sequences, err := late.Append(t.Context(), withoutIDs("test", 0, 20))
	require.NoError(t, err, "the same messages are its own")
	assert.Equal(t, places(1, 20), sequences)
	requireStored(t, c, "TEST", 20)
}

func TestAppendToAFullStream(t *testing.T) {
	t.Parallel()
	c, j := newTestStream(t, 5)
	a := c.NewAppender("TEST", 0)
	done := make(chan error, 1)
	go func() {
		_, err := a.Append(t.Context(), withoutIDs("test", 0, 12))
		done <- err
	}()
	require.Eventually(t, func() bool { return j.has("stream did not store") }, patience, time.Millisecond)
	since, problem := a.Failing()
	assert.False(t, since.IsZero())
	require.ErrorContains(t, problem, "maximum messages exceeded")
	roomy := configOf(t, c, "TEST")
	roomy.MaxMsgs = -1
	_, err := c.js.UpdateStream(t.Context(), roomy)
	require.NoError(t, err)
	require.NoError(t, <-done)
	since, problem = a.Failing()
	assert.True(t, since.IsZero())
	require.NoError(t, problem)
	requireStored(t, c, "TEST", 12)
}

func TestAppendOfWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	c, _ := newTestStream(t, -1)
	a := c.NewAppender("TEST", 0)
	config := configOf(t, c, "TEST")
	config.MaxMsgSize = 1000
	_, err := c.js.UpdateStream(t.Context(), config)
	require.NoError(t, err)
	limit, err := c.MaxMessage(t.Context(), "TEST")
	require.NoError(t, err)
	assert.EqualValues(t, 1000, limit)
	messages := withoutIDs("test", 0, 20)
	messages[1].Data = make([]byte, 2000)
	for _, attempt := range [][]*nats.Msg{messages, messages[1:2]} {
		sequences, err := a.Append(t.Context(), attempt)
		require.ErrorIs(t, err, ErrTooLarge)
		assert.Empty(t, sequences)
	}
	require.Empty(t, contents(t, c, "TEST"))
	sequences, err := a.Append(t.Context(), messages[:3])
	require.ErrorIs(t, err, ErrTooLarge)
	assert.Equal(t, places(1, 1), sequences, "a few are stored one by one")
}

func TestAppendSurvivesANewStream(t *testing.T) {
	t.Parallel()
	c, _ := newTestStream(t, -1)
	a := c.NewAppender("TEST", 0)
	_, err := a.Append(t.Context(), withoutIDs("test", 0, 20))
	require.NoError(t, err)
	require.NoError(t, c.js.DeleteStream(t.Context(), "TEST"))
	require.NoError(t, c.Ensure(t.Context(), "TEST"))
	var overtaken *OvertakenError
	_, err = a.Append(t.Context(), withoutIDs("test", 0, 3))
	require.ErrorAs(t, err, &overtaken)
	_, err = a.Append(t.Context(), withoutIDs("test", 0, 3))
	require.NoError(t, err)
	requireStored(t, c, "TEST", 3)
}

func TestRange(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	require.NoError(t, operator.Ensure(t.Context(), "RAW"))
	bridge, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Bridge, natsfiles.Files)
	const n = 1000
	_, err := bridge.NewAppender("RAW", 0).Append(t.Context(), withoutIDs("f2.raw.test", 0, n))
	require.NoError(t, err)
	s, err := operator.js.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	require.NoError(t, s.DeleteMsg(t.Context(), 500))
	last, err := bridge.LastSequence(t.Context(), "RAW")
	require.NoError(t, err)
	assert.EqualValues(t, n, last)
	for _, test := range []struct{ first, last, from, to uint64 }{{1, n, 1, n}, {0, 3, 1, 3}, {n - 1, n + 10, n - 1, n}, {n, n, n, n}, {5, 4, 1, 0}} {
		want := []uint64(nil)
		for _, sequence := range places(test.from, test.to) {
			if sequence != 500 {
				want = append(want, sequence)
			}
		}
		var got []uint64
		require.NoError(t, bridge.Range(t.Context(), "RAW", test.first, test.last, func(m *jetstream.RawStreamMsg) { got = append(got, m.Sequence) }))
		assert.Equal(t, want, got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, bridge.Range(ctx, "RAW", 1, n, func(*jetstream.RawStreamMsg) {}), context.Canceled)
}
