// Package secrettest gives tests credentials that they can change.
package secrettest

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// FixedSource is a link of a chain that holds one credential under every name. It is
// safe for concurrent use.
type FixedSource struct {
	mu      sync.Mutex
	value   secret.Value
	version int
	asked   int
}

// Set replaces the credential.
func (s *FixedSource) Set(user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.value = secret.NewValue(password, "test", strconv.Itoa(s.version)).WithUsername(user)
}

// Lookup is secret.Source's.
func (s *FixedSource) Lookup(context.Context, string) (secret.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.value, nil
}

// Asked counts the lookups.
func (s *FixedSource) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Credential is one that never changes.
func Credential(user, password string) secret.Login {
	c, _ := newCredential(user, password)
	return c
}

// Changing is a credential whose store looks every poll, until the test's end.
func Changing(tb testing.TB, user, password string, poll time.Duration) (secret.Login, *FixedSource) {
	tb.Helper()
	c, source := newCredential(user, password)
	c.Store.Poll = poll
	_, _, err := c.Get(tb.Context())
	require.NoError(tb, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Store.Run(ctx) }()
	tb.Cleanup(func() {
		stop()
		require.NoError(tb, <-done)
	})
	return c, source
}

func newCredential(user, password string) (secret.Login, *FixedSource) {
	source := new(FixedSource)
	source.Set(user, password)
	store := secret.NewStore(secret.Chain{source}, slog.New(slog.DiscardHandler))
	return secret.Login{Store: store, Password: "password"}, source
}
