package supervisor_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSupervisor() *supervisor.Supervisor {
	return supervisor.New(slog.New(slog.DiscardHandler))
}

// record notes in order what happens.
type record struct {
	mu     sync.Mutex
	events []string
}

func (r *record) add(event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.events, " ")
}

// well is a part that does what it should.
func well(r *record, name string) supervisor.Run {
	return func(ctx context.Context, ready func()) error {
		r.add("+" + name)
		ready()
		<-ctx.Done()
		r.add("-" + name)
		return nil
	}
}

var errBroken = errors.New("broken")

func TestOrder(t *testing.T) {
	t.Parallel()
	var r record
	s := newSupervisor()
	for _, name := range []string{"a", "b", "c"} {
		s.Add(name, well(&r, name))
	}
	require.Equal(t, []string{"a", "b", "c"}, s.Names())
	require.NoError(t, s.StartAll(t.Context()))
	s.StopAll()
	assert.Equal(t, "+a +b +c -c -b -a", r.String())
	s.StopAll()
	assert.Equal(t, "+a +b +c -c -b -a", r.String(), "what does not run is left alone")

	require.NoError(t, s.Start(t.Context(), "b"))
	require.NoError(t, s.Start(t.Context(), "b"))
	require.NoError(t, s.Stop("b"))
	assert.Equal(t, "+a +b +c -c -b -a +b -b", r.String(), "what runs is not started twice, what was stopped can be")
}

// TestWaitsForReady: the next part starts only when the one before is ready.
func TestWaitsForReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r record
		s := newSupervisor()
		s.Add("slow", func(ctx context.Context, ready func()) error {
			time.Sleep(time.Minute)
			r.add("slow")
			ready()
			<-ctx.Done()
			return nil
		})
		s.Add("next", well(&r, "next"))
		require.NoError(t, s.StartAll(t.Context()))
		assert.Equal(t, "slow +next", r.String())
		s.StopAll()
	})
}

func TestUnknownPart(t *testing.T) {
	t.Parallel()
	s := newSupervisor()
	s.Add("known", well(new(record), "known"))
	require.ErrorContains(t, s.Start(t.Context(), "unknown"), "known")
	require.Error(t, s.Stop("unknown"))
	require.NoError(t, s.Stop("known"), "the control")
}

// TestFirstFailure: a part that was never ready is not tried again; its error is
// the caller's to report. Those started before go on.
func TestFirstFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r record
		attempts := 0
		s := newSupervisor()
		s.Add("first", well(&r, "first"))
		s.Add("bad", func(context.Context, func()) error { attempts++; return errBroken })
		s.Add("last", well(&r, "last"))
		err := s.StartAll(t.Context())
		require.ErrorIs(t, err, errBroken)
		require.ErrorContains(t, err, "bad")
		time.Sleep(time.Hour)
		assert.Equal(t, 1, attempts)
		assert.Equal(t, "+first", r.String())
		require.ErrorIs(t, s.Start(t.Context(), "bad"), errBroken, "it can be tried anew")
		assert.Equal(t, 2, attempts)
		s.StopAll()
		assert.Equal(t, "+first -first", r.String())
	})
}

// TestEndsWithoutError: to end is a failure too.
func TestEndsWithoutError(t *testing.T) {
	t.Parallel()
	s := newSupervisor()
	s.Add("short", func(context.Context, func()) error { return nil })
	require.Error(t, s.Start(t.Context(), "short"))
}

// TestRestart: a part is started again, each time after a longer wait, up to a limit;
// after a minute of health the wait is short again. A part that was ready, or whose
// start takes long, is not kept waiting for long.
func TestRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		var mu sync.Mutex
		s := newSupervisor()
		s.Add("flaky", func(ctx context.Context, ready func()) error {
			mu.Lock()
			starts = append(starts, time.Now())
			n := len(starts)
			mu.Unlock()
			switch {
			case n < 6, n == 14, n == 15:
				ready()
			}
			if n == 13 {
				time.Sleep(2 * time.Minute)
			}
			if n == 16 || n == 17 {
				time.Sleep(3 * time.Second)
			}
			if n == 18 {
				<-ctx.Done()
				return nil
			}
			return errBroken
		})
		require.NoError(t, s.Start(t.Context(), "flaky"))
		time.Sleep(10 * time.Minute)
		require.NoError(t, s.Stop("flaky"))
		mu.Lock()
		defer mu.Unlock()
		var waits []time.Duration
		for i := 1; i < len(starts); i++ {
			waits = append(waits, starts[i].Sub(starts[i-1]))
		}
		const ms = time.Millisecond
		assert.Equal(t, []time.Duration{
			200 * ms, 400 * ms, 400 * ms, 400 * ms, 400 * ms, // ready each time
			800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 10 * time.Second, 10 * time.Second, 10 * time.Second, // not ready any more
			2*time.Minute + 200*ms, 400 * ms, 400 * ms,
			3400 * ms, 3400 * ms, // its start takes long
		}, waits)
	})
}

// TestStopWhileWaiting: a stop does not wait for the next attempt.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor()
		s.Add("flaky", func(_ context.Context, ready func()) error { ready(); return errBroken })
		require.NoError(t, s.Start(t.Context(), "flaky"))
		time.Sleep(5 * time.Second) // in the middle of a wait
		synctest.Wait()
		start := time.Now()
		require.NoError(t, s.Stop("flaky"))
		assert.Zero(t, time.Since(start))
	})
}

// TestStopWhileStarting: the caller of Start can give up. The part has ended when
// Start returns, and when a Stop that was called meanwhile returns.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	var ended atomic.Bool
	s := newSupervisor()
	begun := make(chan struct{})
	s.Add("never ready", func(ctx context.Context, _ func()) error {
		close(begun)
		<-ctx.Done()
		time.Sleep(10 * time.Millisecond) // cleaning up
		ended.Store(true)
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	started, stopped := make(chan error, 1), make(chan error, 1)
	var endedAtStop bool
	go func() { started <- s.Start(ctx, "never ready") }()
	<-begun
	go func() {
		err := s.Stop("never ready")
		endedAtStop = ended.Load()
		stopped <- err
	}()
	cancel()
	require.ErrorIs(t, <-started, context.Canceled)
	assert.True(t, ended.Load())
	require.NoError(t, <-stopped)
	assert.True(t, endedAtStop)
}

// TestOutlivesCaller: a part's life is not that of the context it was started
// with.
func TestOutlivesCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r record
		s := newSupervisor()
		s.Add("part", well(&r, "part"))
		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, s.Start(ctx, "part"))
		cancel()
		time.Sleep(time.Hour)
		assert.Equal(t, "+part", r.String())
		s.StopAll()
		assert.Equal(t, "+part -part", r.String())
	})
}

// TestReadyFromElsewhere: another goroutine of the part may call ready, even
// late; the race detector is this test's judge.
func TestReadyFromElsewhere(t *testing.T) {
	t.Parallel()
	s := newSupervisor()
	var calls sync.WaitGroup
	s.Add("part", func(ctx context.Context, ready func()) error {
		for range 3 {
			calls.Go(ready)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Microsecond):
		}
		return errBroken
	})
	for range 20 {
		_ = s.Start(t.Context(), "part")
		require.NoError(t, s.Stop("part"))
	}
	calls.Wait()
}

// TestStress starts and stops everything at once; there is never more than one
// run of a part, and none is left.
func TestStress(t *testing.T) {
	t.Parallel()
	s := newSupervisor()
	running := map[string]*atomic.Int32{}
	for _, name := range []string{"a", "b", "c"} {
		n := new(atomic.Int32)
		running[name] = n
		s.Add(name, func(ctx context.Context, ready func()) error {
			if n.Add(1) != 1 {
				t.Error("two runs of one part")
			}
			defer n.Add(-1)
			if rand.IntN(4) == 0 {
				return errBroken
			}
			ready()
			if rand.IntN(4) == 0 {
				return errBroken
			}
			<-ctx.Done()
			return nil
		})
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				name := s.Names()[rand.IntN(3)]
				switch rand.IntN(5) {
				case 0, 1:
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(1000))*time.Microsecond)
					_ = s.Start(ctx, name)
					cancel()
				case 2, 3:
					_ = s.Stop(name)
				default:
					s.StopAll()
				}
			}
		})
	}
	wg.Wait()
	s.StopAll()
	for name, n := range running {
		assert.Zero(t, n.Load(), name)
	}
}
