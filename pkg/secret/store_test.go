package secret_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

var (
	errDown   = fmt.Errorf("asking: %w: connection refused", secret.ErrUnavailable)
	errDenied = errors.New("permission denied")
)

// link is a Source that answers what the test says.
type link struct {
	mu    sync.Mutex
	name  string
	held  map[string]string
	err   error           // instead of an answer
	stall map[string]bool // answers only when its context ends
	asked []time.Time
}

func newLink(name string, held map[string]string) *link { return &link{name: name, held: held} }

func (l *link) set(held map[string]string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held, l.err = held, err
}

func (l *link) times() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]time.Time(nil), l.asked...)
}

func (l *link) Lookup(ctx context.Context, name string) (secret.Value, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, time.Now())
	if l.stall[name] {
		l.mu.Unlock()
		<-ctx.Done()
		l.mu.Lock()
		return secret.Value{}, ctx.Err()
	}
	if l.err != nil {
		return secret.Value{}, l.err
	}
	text, ok := l.held[name]
	if !ok {
		return secret.Value{}, secret.ErrNotFound
	}
	return secret.NewValue(text, l.name, "v-"+text), nil
}

// running is a Store whose Run has been started in a bubble of synctest.
func running(t *testing.T, chain secret.Chain, log *slog.Logger) *secret.Store {
	t.Helper()
	store := secret.NewStore(chain, log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return store
}

// look has the store look now, and waits until it has.
func look(store *secret.Store) {
	time.Sleep(2 * time.Second) // what Run rests after its last look
	store.Refused()
	time.Sleep(8 * time.Second) // with two links that stall
	synctest.Wait()
}

func reveal(t *testing.T, store *secret.Store, name string) string {
	t.Helper()
	v, err := store.Get(t.Context(), name)
	require.NoError(t, err)
	return v.Reveal()
}

func only(t *testing.T, store *secret.Store) secret.Status {
	t.Helper()
	all := store.Status()
	require.Len(t, all, 1)
	return all[0]
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestStoreFollowsChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", map[string]string{"a": "one"})
		store := running(t, secret.Chain{vault}, quiet())
		var calls atomic.Int32
		store.Notify("a", func() { calls.Add(1) })
		began := time.Now()
		assert.Equal(t, "one", reveal(t, store, "a"))
		assert.Equal(t, "one", reveal(t, store, "a"))
		assert.Len(t, vault.times(), 1, "the second answer is from memory")
		assert.Zero(t, calls.Load(), "Get's caller has the value")
		assert.Equal(t, secret.Status{Name: "a", Source: "vault", Version: "v-one", Since: began}, only(t, store))

		look(store)
		assert.Zero(t, calls.Load(), "nothing has changed")
		assert.Equal(t, began, only(t, store).Since)

		vault.set(map[string]string{"a": "two"}, nil)
		assert.Equal(t, "one", reveal(t, store, "a"), "until it is looked for")
		look(store)
		assert.Equal(t, "two", reveal(t, store, "a"))
		assert.EqualValues(t, 1, calls.Load())
		assert.Equal(t, "v-two", only(t, store).Version)
		assert.True(t, only(t, store).Since.After(began))
	})
}

// TestStoreDowngrade walks through what the links can do, one step after the other.
func TestStoreDowngrade(t *testing.T) {
	t.Parallel()
	v, f := map[string]string{"a": "of-vault"}, map[string]string{"a": "of-file"}
	type step struct {
		what       string
		vault      map[string]string
		err        error
		want       string
		downgraded bool
		problem    string
	}
	up := step{what: "vault answers", vault: v, want: "of-vault"}
	for name, steps := range map[string][]step{
		"vault goes and comes": {
			up,
			{what: "down", err: errDown, want: "of-vault", downgraded: true, problem: "connection refused"},
			{what: "still down", err: errDown, want: "of-vault", downgraded: true, problem: "only file would"},
			up,
		},
		"the secret is deleted in vault": {
			up,
			{what: "deleted", want: "of-vault", downgraded: true, problem: "vault does not answer any more, only file would"},
			{what: "another", vault: map[string]string{"a": "second"}, want: "second"},
		},
		"vault refuses": {
			up,
			{what: "denied", err: errDenied, want: "of-vault", downgraded: true, problem: "permission denied"},
			up,
		},
		"down at the start": {
			{what: "down", err: errDown, want: "of-file", downgraded: true, problem: "connection refused"},
			{what: "still", err: errDown, want: "of-file", downgraded: true, problem: "connection refused"},
			up,
			{what: "down again", err: errDown, want: "of-vault", downgraded: true, problem: "connection refused"},
		},
		"vault does not hold it": {
			{what: "not there", want: "of-file"},
			{what: "down", err: errDown, want: "of-file", downgraded: true, problem: "connection refused"},
			{what: "up", want: "of-file"},
		},
		"denied at the start": {
			{what: "denied", err: errDenied, want: ""},
			up,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				vault := newLink("vault", nil)
				store := running(t, secret.Chain{vault, newLink("file", f)}, quiet())
				for i, s := range steps {
					vault.set(s.vault, s.err)
					if i > 0 {
						look(store)
					}
					got, err := store.Get(t.Context(), "a")
					if s.want == "" {
						require.ErrorIs(t, err, s.err, s.what)
						require.Empty(t, only(t, store).Source, s.what)
						continue
					}
					require.NoError(t, err, s.what)
					require.Equal(t, s.want, got.Reveal(), s.what)
					status := only(t, store)
					require.Equal(t, s.downgraded, status.Downgraded, s.what)
					if s.problem == "" {
						require.Empty(t, status.Problem, s.what)
					} else {
						require.Contains(t, status.Problem, s.problem, s.what)
					}
				}
			})
		})
	}
}

func TestVaultOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", map[string]string{"a": "of-vault", "b": "of-vault"})
		vault.set(nil, errDown)
		files := newLink("file", map[string]string{"a": "of-file", "b": "of-file"})
		store := running(t, secret.Chain{vault, secret.VaultOnly{"a"}, files}, quiet())
		_, err := store.Get(t.Context(), "a")
		require.ErrorContains(t, err, "Vault-only")
		require.ErrorIs(t, err, secret.ErrUnavailable, "and why Vault did not give it")
		require.Equal(t, "of-file", reveal(t, store, "b"), "the control")

		vault.set(map[string]string{"a": "of-vault"}, nil)
		look(store)
		require.Equal(t, "of-vault", reveal(t, store, "a"))
		vault.set(nil, errDown)
		look(store)
		require.Equal(t, "of-vault", reveal(t, store, "a"), "the last good value is Vault's")

		_, err = secret.Chain{secret.VaultOnly{"a"}, files}.Lookup(t.Context(), "a")
		require.ErrorContains(t, err, "Vault-only", "where there is no Vault at all")
		require.NotErrorIs(t, err, secret.ErrNotFound)
	})
}

// TestStoreStall: a link that stalls costs its limit, and delays nobody else.
func TestStoreStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", map[string]string{"a": "one", "b": "one"})
		store := running(t, secret.Chain{vault, newLink("file", map[string]string{"a": "of-file", "c": "of-file"})}, quiet())
		reveal(t, store, "a")
		vault.mu.Lock()
		vault.stall = map[string]bool{"a": true, "c": true}
		vault.mu.Unlock()

		began := time.Now()
		store.Refused()
		synctest.Wait() // it waits for a
		assert.Equal(t, "one", reveal(t, store, "a"), "known: from memory")
		assert.Equal(t, "one", reveal(t, store, "b"), "another: asked beside it")
		assert.Zero(t, time.Since(began), "nobody waited")

		var first sync.WaitGroup
		for range 10 {
			first.Go(func() { assert.Equal(t, "of-file", reveal(t, store, "c")) })
		}
		first.Wait()
		assert.Equal(t, 3*time.Second, time.Since(began), "the limit of one link, once for all who asked")
		synctest.Wait() // the look at a ends at the same moment
		for _, s := range store.Status() {
			assert.Equal(t, s.Name != "b", s.Downgraded, s.Name)
		}
	})
}

func TestStoreCallerGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", map[string]string{"a": "one"})
		vault.stall = map[string]bool{"a": true}
		store := secret.NewStore(secret.Chain{vault}, quiet())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var waiting sync.WaitGroup
		var errs [3]error
		for i := range errs {
			waiting.Go(func() { _, errs[i] = store.Get(ctx, "a") })
		}
		waiting.Wait()
		for _, err := range errs {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, secret.ErrUnavailable, "nothing is known of the source")
		}
		assert.Empty(t, only(t, store).Problem)
	})
}

func TestStorePolls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", map[string]string{"a": "one"})
		store := running(t, secret.Chain{vault}, quiet())
		reveal(t, store, "a")
		time.Sleep(30 * time.Minute)
		asked := vault.times()
		different := map[time.Duration]bool{}
		for i := 2; i < len(asked); i++ {
			gap := asked[i].Sub(asked[i-1]).Round(time.Millisecond)
			assert.GreaterOrEqual(t, gap, 12*time.Second)
			assert.LessOrEqual(t, gap, 19*time.Second)
			different[gap] = true
		}
		assert.Greater(t, len(asked), 90, "about every 15 s")
		assert.Greater(t, len(different), len(asked)/2, "jittered")
	})
}

func TestStoreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", map[string]string{"a": "one"})
		store := running(t, secret.Chain{vault}, quiet())
		reveal(t, store, "a")
		began := time.Now()
		store.Refused()
		synctest.Wait()
		assert.Len(t, vault.times(), 2, "at once")
		for range 100 { // a storm of refused connections, for 5 s
			store.Refused()
			time.Sleep(50 * time.Millisecond)
		}
		assert.LessOrEqual(t, len(vault.times()), 2+int(time.Since(began)/time.Second), "not more than once a second")
		assert.GreaterOrEqual(t, len(vault.times()), 6)
	})
}

func TestStoreNotify(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", nil)
		files := newLink("file", map[string]string{"a": "same"})
		store := secret.NewStore(secret.Chain{vault, files}, quiet())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _ = store.Run(ctx); close(done) }()
		var inside, calls atomic.Int32
		release := make(chan struct{})
		store.Notify("a", func() {
			assert.EqualValues(t, 1, inside.Add(1), "never twice at the same time")
			<-release
			inside.Add(-1)
			calls.Add(1)
		})
		store.Notify("late", func() { calls.Add(100) })
		reveal(t, store, "a")

		vault.set(map[string]string{"a": "same"}, nil)
		look(store)
		assert.Zero(t, inside.Load(), "the same credential from another place is no change")
		assert.Equal(t, "vault", store.Status()[0].Source)

		for _, text := range []string{"second", "third"} {
			vault.set(map[string]string{"a": text}, nil)
			look(store)
		}
		assert.Equal(t, "third", reveal(t, store, "a"), "a callback that takes long delays nothing")
		cancel()
		synctest.Wait()
		select {
		case <-done:
			assert.Fail(t, "Run has left a callback behind")
		default:
		}
		close(release)
		<-done
		assert.EqualValues(t, 2, calls.Load())
	})
}

func TestStoreNotifiesFirstFind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", nil)
		store := running(t, secret.Chain{vault}, quiet())
		var calls atomic.Int32
		store.Notify("a", func() { calls.Add(1) })
		_, err := store.Get(t.Context(), "a")
		require.ErrorIs(t, err, secret.ErrNotFound)
		vault.set(map[string]string{"a": "one"}, nil)
		look(store)
		assert.EqualValues(t, 1, calls.Load())
	})
}

// TestStoreProperty: whatever the links do, the value is the newest one of the
// highest link that has ever answered, and a bad look is told.
func TestStoreProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		links := []*link{newLink("0", nil), newLink("1", nil), newLink("2", nil)}
		store := secret.NewStore(secret.Chain{links[0], links[1], links[2]}, quiet())
		best, want := len(links), "" // the model
		for range rapid.IntRange(1, 12).Draw(rt, "looks") {
			answered, value, clean := len(links), "", true
			for i, l := range links {
				state := rapid.SampledFrom([]string{"x", "y", "missing", "down", "denied"}).Draw(rt, "state")
				l.set(map[string]string{"a": state}, map[string]error{
					"missing": secret.ErrNotFound, "down": errDown, "denied": errDenied,
				}[state])
				if answered < len(links) || !clean && value == "denied" {
					continue // not asked
				}
				switch state {
				case "x", "y":
					answered, value = i, state
				case "down":
					clean = false
				case "denied":
					clean, value = false, "denied"
				}
			}
			store.LookNow(t.Context(), "a")
			if answered <= best && answered < len(links) {
				best, want = answered, value
			} else {
				clean = false
			}
			v, found := store.Held("a")
			status := store.Status()[0]
			if found != (want != "") || v.Reveal() != want {
				rt.Fatalf("value %q, want %q", v.Reveal(), want)
			}
			if (status.Problem == "") != clean || status.Downgraded != (!clean && found) {
				rt.Fatalf("%+v after a look that was clean: %v", status, clean)
			}
		}
	})
}
