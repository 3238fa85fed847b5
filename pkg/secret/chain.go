package secret

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// linkTimeout bounds one question to one link. A link that stalls must leave
// time for the next, and must not keep data from flowing.
const linkTimeout = 3 * time.Second

// ErrNotFound is what a source returns that does not hold the secret.
var ErrNotFound = errors.New("secret not found")

// ErrUnavailable is what a source returns that cannot be asked now, for a reason
// that passes by itself: a server that is down, sealed or slow. What somebody has
// to fix, such as a refused login or a file that others can read, is not that.
var ErrUnavailable = errors.New("source of secrets is unavailable")

// Source is one link of the chain. It must be safe for concurrent use.
type Source interface {
	// Lookup returns ErrNotFound if the source does not hold name, and ErrUnavailable
	// if it cannot be asked now; any other error means that the source refuses.
	Lookup(ctx context.Context, name string) (Value, error)
}

// Chain asks its sources in order. It is safe for concurrent use.
type Chain []Source

// Lookup returns the first answer. A source that fails, rather than not
// holding the secret, ends the search: falling through would be a silent
// downgrade. A Store does fall through where that is harmless, and says so.
func (c Chain) Lookup(ctx context.Context, name string) (Value, error) {
	a, err := c.ask(ctx, name)
	if err == nil && a.passed != nil {
		err = fmt.Errorf("looking up secret %s: %w", name, a.passed)
	}
	if err != nil {
		return Value{}, err
	}
	return a.value, nil
}

// answer is what a chain says of a secret.
type answer struct {
	value  Value
	link   int   // that answered
	passed error // why a link above it could not be asked, nil if all were
}

// ask passes links that do not hold the secret, and links that are unavailable.
func (c Chain) ask(ctx context.Context, name string) (answer, error) {
	var passed error
	for i, source := range c {
		v, err := askLink(ctx, source, name)
		switch {
		case err == nil:
			return answer{value: v, link: i, passed: passed}, nil
		case errors.Is(err, ErrNotFound):
		case errors.Is(err, ErrUnavailable):
			passed = errors.Join(passed, err)
		default:
			return answer{}, fmt.Errorf("looking up secret %s: %w", name, errors.Join(passed, err))
		}
	}
	if passed == nil {
		passed = ErrNotFound
	}
	return answer{}, fmt.Errorf("looking up secret %s: %w", name, passed)
}

// askLink is Lookup with a limit of its own.
func askLink(ctx context.Context, source Source, name string) (Value, error) {
	bounded, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	v, err := source.Lookup(bounded, name)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && !errors.Is(err, ErrUnavailable) {
		return Value{}, fmt.Errorf("%w: no answer within %v: %w", ErrUnavailable, linkTimeout, err)
	}
	return v, err
}

// VaultOnly is a link that ends the search for the secrets that it names: in a
// chain it stands behind Vault, and what stands behind it is not asked for them.
type VaultOnly []string

// Lookup answers no secret, and refuses those that are named.
func (names VaultOnly) Lookup(_ context.Context, name string) (Value, error) {
	if slices.Contains(names, name) {
		return Value{}, errors.New("it is marked Vault-only and Vault does not give it: put it there, or take the mark away")
	}
	return Value{}, ErrNotFound
}
