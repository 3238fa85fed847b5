package secret_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// shelf is a source that a test fills.
type shelf struct {
	mu     sync.Mutex
	values map[string]secret.Value
}

func (s *shelf) put(name string, v secret.Value) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name] = v
}

func (s *shelf) Lookup(_ context.Context, name string) (secret.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.values[name]; ok {
		return v, nil
	}
	return secret.Value{}, secret.ErrNotFound
}

func TestCredential(t *testing.T) {
	t.Parallel()
	bare, paired := secret.NewValue(password, "test", "1"), secret.NewValue(password, "test", "1").WithUsername("paired")
	name := secret.NewValue("named", "test", "1")
	for want, values := range map[string]map[string]secret.Value{
		"paired":  {"password": paired, "username": name},
		"named":   {"password": bare, "username": name},
		"default": {"password": bare},
		"":        {"username": name},
	} {
		store := secret.NewStore(secret.Chain{&shelf{values: values}}, slog.New(slog.DiscardHandler))
		c := secret.Login{Store: store, Password: "password", Username: "username", User: "default"}
		user, got, err := c.Get(t.Context())
		assert.Equal(t, want, user)
		if want == "" {
			require.ErrorIs(t, err, secret.ErrNotFound, "a user name alone is no credential")
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, password, got)
	}
}

// TestStatusShowsWhatIsInUse changes a secret whose user takes its time: others
// must not think that it has moved.
func TestStatusShowsWhatIsInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &shelf{values: map[string]secret.Value{"password": secret.NewValue("first", "test", "1")}}
		store := secret.NewStore(secret.Chain{source}, slog.New(slog.DiscardHandler))
		store.Poll = time.Second
		c := secret.Login{Store: store, Password: "password"}
		_, _, err := c.Get(t.Context())
		require.NoError(t, err)
		seen := make(chan string, 1)
		c.Notify(func() {
			_, password, _ := c.Get(t.Context())
			seen <- password
			time.Sleep(time.Minute)
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- store.Run(ctx) }()
		version := func() string { return store.Status()[0].Version }

		source.put("password", secret.NewValue("second", "test", "2"))
		assert.Equal(t, "second", <-seen, "it is told")
		time.Sleep(59 * time.Second)
		synctest.Wait()
		assert.Equal(t, "1", version(), "it is still moving")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		assert.Equal(t, "2", version())

		source.put("password", secret.NewValue("second", "test", "3"))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		assert.Equal(t, "3", version(), "the same credential again is nobody's business")
		assert.Empty(t, seen)
		stop()
		require.NoError(t, <-done)
	})
}
