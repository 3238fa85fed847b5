package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

var errCrash = errors.New("the rotation was killed")

const name = "timescale_password"

// world is a server, a store and a service in memory. It crashes the rotation at
// a chosen call, before that has an effect or behind it, and checks at every call
// what must always hold.
type world struct {
	t         *testing.T
	dir       string
	passwords map[string]string // of users who may log in
	stored    secret.Value
	version   int
	service   secret.Value // what the service uses
	stuck     bool         // the service does not move
	absent    bool         // the service does not run
	partly    bool         // one of several servers does not let the user in
	unlocked  bool         // the server does not lock users
	instances int          // of the service, which all say the same
	source    string       // where the service has it from, if not from the store

	calls, crashAt int
	behind         bool // the crash comes behind the effect
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c, _ := credential.Find(name)
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "rotation"), passwords: map[string]string{c.User: "first"}, version: 1, instances: 1}
	w.stored = secret.NewValue("first", "file", "1")
	w.service = w.stored
	return w
}

// call counts, and crashes where it is to.
func (w *world) call(effect func()) error {
	w.calls++
	crash := w.calls == w.crashAt
	if crash && !w.behind {
		return errCrash
	}
	effect()
	w.holds()
	if crash {
		return errCrash
	}
	return nil
}

func (w *world) works(v secret.Value) bool {
	password, ok := w.passwords[v.Username("f2mesh_writer")]
	return ok && password == v.Reveal()
}

// holds is the promise of a rotation: what is stored and what is in use works.
func (w *world) holds() {
	assert.True(w.t, w.works(w.stored), "what is stored does not work after call %d", w.calls)
	assert.True(w.t, w.works(w.service), "what the service uses does not work after call %d", w.calls)
}

func (w *world) SetPassword(_ context.Context, user, password string) error {
	return w.call(func() {
		switch {
		case password != "":
			w.passwords[user] = password
		case !w.unlocked:
			delete(w.passwords, user)
		}
	})
}

func (w *world) LogIn(_ context.Context, user, password string) (in bool, err error) {
	err = w.call(func() { in = w.passwords[user] == password && password != "" })
	if w.partly {
		return false, ErrPartly
	}
	return in, err
}

func (w *world) Sessions(context.Context, string) (int, error) { return 0, w.call(func() {}) }

func (w *world) Lookup(context.Context, string) (v secret.Value, err error) {
	err = w.call(func() { v = w.stored })
	return v, err
}

func (w *world) Put(_ context.Context, _, user, password string, old secret.Value) (secret.Value, error) {
	if old.Version() != w.stored.Version() {
		return secret.Value{}, errors.New("the version is another")
	}
	err := w.call(func() {
		w.version++
		w.stored = secret.NewValue(password, "file", strconv.Itoa(w.version)).WithUsername(user)
	})
	return w.stored, err
}

// Status lets the service move, unless it is stuck.
func (w *world) Status(context.Context, string, string) (all []secret.Status, err error) {
	if w.absent {
		return nil, nil
	}
	err = w.call(func() {
		if !w.stuck {
			w.service = w.stored
		}
		source := w.service.Source()
		if w.source != "" {
			source = w.source
		}
		for range w.instances {
			all = append(all, secret.Status{Name: name, Source: source, Version: w.service.Version()})
		}
	})
	return all, err
}

func (w *world) config() Config {
	c, _ := credential.Find(name)
	return Config{
		Credential: c, Server: w, Store: w, Services: w, Dir: w.dir,
		Timeout: 300 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	}
}

// completed is how a rotation ends: one credential works, it is stored, it is used.
func (w *world) completed(t *testing.T) {
	t.Helper()
	assert.Len(t, w.passwords, 1, "exactly one credential works")
	assert.True(t, w.works(w.stored))
	assert.Equal(t, w.stored.Version(), w.service.Version())
	assert.NotEqual(t, "first", w.stored.Reveal())
	entries, err := filepath.Glob(filepath.Join(w.dir, "*.json"))
	require.NoError(t, err)
	assert.Empty(t, entries, "the journal is gone")
}

func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n, users := range []string{"f2mesh_writer f2mesh_writer_b", "f2mesh_writer_b f2mesh_writer", "f2mesh_writer f2mesh_writer_b"} {
		before := w.stored.Reveal()
		result, err := Run(t.Context(), w.config())
		require.NoError(t, err)
		w.completed(t)
		assert.NotEqual(t, before, w.stored.Reveal())
		assert.GreaterOrEqual(t, len(w.stored.Reveal()), 32, "24 random bytes in base64")
		assert.Equal(t, users, result.From+" "+result.To)
		assert.Equal(t, []string{strconv.Itoa(n + 1), strconv.Itoa(n + 2)}, []string{result.Old, result.New})
		assert.False(t, result.Resumed)
	}
}

// Killed at any call, before or behind its effect, once or at every further call
// too, a rotation leaves what works, and the next one completes it.
func TestRunIsResumable(t *testing.T) {
	t.Parallel()
	reference := newWorld(t)
	_, err := Run(t.Context(), reference.config())
	require.NoError(t, err)
	resumed := 0
	for at := 1; at <= reference.calls; at++ {
		for _, behind := range []bool{false, true} {
			for _, again := range []int{0, 1, 2, 3} {
				t.Run(fmt.Sprint("call ", at, " behind ", behind, " again ", again), func(t *testing.T) {
					w := newWorld(t)
					w.crashAt, w.behind = at, behind
					_, err := Run(t.Context(), w.config())
					if err == nil {
						return // a call that is repeated when it fails
					}
					require.ErrorIs(t, err, errCrash)
					if again > 0 {
						w.calls, w.crashAt = 0, again
						_, _ = Run(t.Context(), w.config())
					}
					w.crashAt = 0
					result, err := Run(t.Context(), w.config())
					require.NoError(t, err)
					w.completed(t)
					if result.Resumed {
						resumed++
					}
				})
			}
		}
	}
	assert.Positive(t, resumed, "some are completed, not begun anew")
}

// Between two steps nothing is on its way: what is there is what the next run has.
func TestRunStopsBetweenSteps(t *testing.T) {
	t.Parallel()
	for _, last := range []string{"grant", "verify", "store", "wait", "retire"} {
		w := newWorld(t)
		cfg := w.config()
		cfg.Done = func(step string) error {
			if step == last {
				return errCrash
			}
			return nil
		}
		_, err := Run(t.Context(), cfg)
		require.ErrorIs(t, err, errCrash, last)
		plan, err := Plan(t.Context(), w.config())
		require.NoError(t, err)
		stored := last == "store" || last == "wait" || last == "retire"
		assert.Equal(t, stored, len(plan) == 2, "after %s: %v", last, plan)
		result, err := Run(t.Context(), w.config())
		require.NoError(t, err)
		w.completed(t)
		assert.Equal(t, stored, result.Resumed, last)
		assert.Equal(t, "1", result.Old)
		assert.Equal(t, w.stored.Version(), result.New)
	}
}

func TestOldCredentialStaysWhileAServiceUsesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stuck = true
	_, err := Run(t.Context(), w.config())
	require.ErrorContains(t, err, "writer uses version 1, not 2")
	require.ErrorContains(t, err, "run the same command again")
	assert.Len(t, w.passwords, 2, "both work")
	w.stuck = false
	result, err := Run(t.Context(), w.config())
	require.NoError(t, err)
	assert.True(t, result.Resumed)
	w.completed(t)
}

// An instance that does not answer for a moment has not moved for that.
func TestEveryInstanceIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.instances = 2
	cfg := w.config()
	cfg.Done = func(step string) error {
		if step == "store" {
			w.instances = 1
		}
		return nil
	}
	_, err := Run(t.Context(), cfg)
	require.ErrorContains(t, err, "only 1 of 2 instances of writer answer")
	assert.Len(t, w.passwords, 2)
	_, err = Run(t.Context(), w.config()) // by now it has ended, or it is lost
	require.NoError(t, err)
	w.completed(t)
}

// The control of TestRunIsResumable: what must hold does not if the old one is
// retired before the service has moved.
func TestRetiringTooEarlyIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(&testing.T{})
	w.t, w.stuck, w.dir = &testing.T{}, true, t.TempDir()
	r, err := open(t.Context(), w.config())
	require.NoError(t, err)
	defer r.journal.close()
	for _, s := range r.steps() {
		if s.name != "wait" {
			require.NoError(t, r.do(t.Context(), s))
		}
	}
	assert.True(t, w.t.Failed())
}

func TestNothingIsChangedWhereItCannotComeToItsEnd(t *testing.T) {
	t.Parallel()
	for problem, spoil := range map[string]func(*world){
		`has it from "environment", not from "file"`: func(w *world) { w.source = "environment" },
		"does not run":              func(w *world) { w.absent = true },
		"uses version 1, not 9":     func(w *world) { w.stuck = true; w.stored = secret.NewValue("first", "file", "9") },
		`it is for user "stranger"`: func(w *world) { w.stored = w.stored.WithUsername("stranger"); w.passwords["stranger"] = "first" },
	} {
		w := newWorld(t)
		spoil(w)
		before := w.stored.Version()
		_, err := Run(t.Context(), w.config())
		require.ErrorContains(t, err, problem)
		assert.Equal(t, before, w.stored.Version())
		assert.NotContains(t, w.passwords, "f2mesh_writer_b")
		_, err = Plan(t.Context(), w.config())
		require.ErrorContains(t, err, problem)
	}
}

func TestAbsentServiceIsAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.absent = true
	cfg := w.config()
	cfg.AllowAbsent = true
	cfg.Done = func(string) error { w.service = w.stored; return nil } // as if it started now
	_, err := Run(t.Context(), cfg)
	require.NoError(t, err)
}

// A credential that somebody replaced by hand, in the store alone, is fixed.
func TestRefusedCredentialIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.passwords["f2mesh_writer"] = "another"
	judge := w.t
	w.t = &testing.T{} // until then nothing works
	cfg := w.config()
	cfg.Done = func(step string) error {
		if step == "wait" {
			w.t = judge
		}
		return nil
	}
	_, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	w.completed(t)
}

// A credential that works on one of several servers is replaced on all of them; one that
// is stored does not count as working until all take it.
func TestPartlyRefusedCredentialIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.partly = true
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := Run(ctx, w.config())
	require.ErrorContains(t, err, "step verify")
	require.ErrorIs(t, err, ErrPartly)
	assert.Equal(t, "1", w.stored.Version(), "nothing was stored")

	cfg := w.config()
	cfg.Done = func(step string) error {
		w.partly = step == "store" // repaired by "grant"; then another server comes back from a backup
		if w.partly {
			return errCrash
		}
		return nil
	}
	w.partly = false
	_, err = Run(t.Context(), cfg)
	require.ErrorIs(t, err, errCrash)
	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = Run(ctx, w.config())
	require.ErrorIs(t, err, ErrPartly, "it set the password again, and that has no effect")
	w.partly = false
	result, err := Run(t.Context(), w.config())
	require.NoError(t, err)
	assert.True(t, result.Resumed)
	w.completed(t)
}

// A restart of the server takes the stored credential, which may be behind.
func TestServerWasStartedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Done = func(step string) error {
		if step == "store" {
			return errCrash
		}
		return nil
	}
	_, err := Run(t.Context(), cfg)
	require.ErrorIs(t, err, errCrash)
	delete(w.passwords, "f2mesh_writer_b")
	w.service = secret.NewValue("first", "file", "1")
	w.t = &testing.T{} // what is stored does not work until the next run
	_, err = Run(t.Context(), w.config())
	require.NoError(t, err)
	w.completed(t)
}

func TestTwoAtATimeAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Done = func(string) error {
		_, err := Run(t.Context(), w.config())
		require.ErrorIs(t, err, ErrRunning)
		_, err = Plan(t.Context(), w.config())
		require.ErrorIs(t, err, ErrRunning)
		return nil
	}
	_, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	w.completed(t)
}

// The journal says nothing that opens anything, and only its owner reads it.
func TestJournalHasNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Done = func(step string) error {
		if step == "store" {
			return errCrash
		}
		return nil
	}
	_, err := Run(t.Context(), cfg)
	require.ErrorIs(t, err, errCrash)
	path := filepath.Join(w.dir, name+".json")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.NotContains(t, string(text), w.stored.Reveal())
	assert.NotContains(t, string(text), "first")
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// A rotation does not end while the server still takes the old password, whether or not
// it was interrupted.
func TestLockThatHasNoEffectIsSeen(t *testing.T) {
	t.Parallel()
	for _, interrupted := range []bool{false, true} {
		w := newWorld(t)
		if interrupted {
			cfg := w.config()
			cfg.Done = func(step string) error {
				if step == "store" {
					return errCrash
				}
				return nil
			}
			_, err := Run(t.Context(), cfg)
			require.ErrorIs(t, err, errCrash)
		}
		w.unlocked = true
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := Run(ctx, w.config())
		require.ErrorContains(t, err, "the server still lets user f2mesh_writer in")

		w.unlocked = false
		result, err := Run(t.Context(), w.config())
		require.NoError(t, err)
		assert.True(t, result.Resumed)
		w.completed(t)
	}
}

func TestPlanChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lines, err := Plan(t.Context(), w.config())
	require.NoError(t, err)
	assert.Len(t, lines, 5)
	assert.Contains(t, strings.Join(lines, "\n"), "f2mesh_writer_b")
	assert.Equal(t, map[string]string{"f2mesh_writer": "first"}, w.passwords)
	assert.Equal(t, "1", w.stored.Version())
}
