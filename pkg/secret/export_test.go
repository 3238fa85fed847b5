package secret

import "context"

// LookNow is one look of Run at one secret.
func (s *Store) LookNow(ctx context.Context, name string) {
	_, _ = s.ask(ctx, s.hold(name))
}

// Held is the value in memory.
func (s *Store) Held(name string) (Value, bool) { return s.current(s.hold(name)) }
