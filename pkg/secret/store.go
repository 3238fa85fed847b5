package secret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// pollInterval is how often Run asks the chain again, give or take a fifth: KV
	// v2 has no push (design 8).
	pollInterval = 15 * time.Second
	// restInterval is the least time between two looks, however many connections
	// are refused.
	restInterval = time.Second
)

// Status is where the value that a service uses is from, without the value. A new
// version shows once all that Notify named have returned: connections made with
// the one before may be in use until then.
type Status struct {
	Name    string    `json:"name"`
	Source  string    `json:"source"` // "" if the secret was never found
	Version string    `json:"version"`
	Since   time.Time `json:"since"` // when this process first had this version
	// Downgraded is set while a link that answered before does not, and while a link
	// above the one that answered cannot be asked. The last good value stays in use.
	Downgraded bool   `json:"downgraded"`
	Problem    string `json:"problem,omitempty"` // why the last look was not all well, "" if it was
}

// Store holds the secrets that one service uses: the last good value of each,
// which stays when the chain cannot answer or would answer from a lower link. A
// link that cannot be asked (ErrUnavailable) is passed as long as it has never
// answered, and Status says so. It is safe for concurrent use.
type Store struct {
	// Poll is how often Run looks, if not every 15 seconds. Set it before Run.
	Poll time.Duration

	chain Chain
	log   *slog.Logger
	again chan struct{} // asks Run to look at once

	mu      sync.Mutex // guards secrets, and of each held what is below its own guard
	secrets map[string]*held
}

// held is one secret of a Store.
type held struct {
	turn chan struct{} // full while the chain is asked: an older answer never replaces a newer one

	value  Value
	link   int // that answered
	status Status
	used   *Status // what was in use before a look, until those in notify have returned
	moving int     // how many have not, and the look
	notify []func()
}

// NewStore returns a store without secrets; Get fills it.
func NewStore(chain Chain, log *slog.Logger) *Store {
	return &Store{chain: chain, log: log, again: make(chan struct{}, 1), secrets: map[string]*held{}}
}

// Get returns the current value: from memory once it was found, else from the
// chain, which takes at most linkTimeout a link.
func (s *Store) Get(ctx context.Context, name string) (Value, error) {
	h := s.hold(name)
	if v, found := s.current(h); found {
		return v, nil
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return Value{}, fmt.Errorf("looking up secret %s: %w", name, ctx.Err())
	}
	if v, found := s.current(h); found {
		return v, nil // while this waited for its turn
	}
	if _, err := s.ask(ctx, h); err != nil {
		return Value{}, err
	}
	v, _ := s.current(h)
	return v, nil
}

// Notify has Run call changed after each change of the secret's user name or
// password, and when it is found for the first time by Run rather than by Get.
// changed gets the value by Get, and is never called twice at the same time.
func (s *Store) Notify(name string, changed func()) {
	one := make(chan struct{}, 1)
	h := s.hold(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.notify = append(h.notify, func() {
		one <- struct{}{}
		defer func() { <-one }()
		changed()
	})
}

// Refused tells that a server did not take the current value of a secret: Run
// looks at once instead of at its next poll.
func (s *Store) Refused() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// Run looks for new values until ctx ends and those that Notify named have
// returned, and then returns nil.
func (s *Store) Run(ctx context.Context) error {
	var notified sync.WaitGroup
	defer notified.Wait()
	interval := cmp.Or(s.Poll, pollInterval)
	for {
		wait := time.Duration((0.8 + 0.4*rand.Float64()) * float64(interval)) //nolint:gosec // spreads load, protects nothing
		select {
		case <-ctx.Done():
			return nil
		case <-s.again:
		case <-time.After(wait):
		}
		s.look(ctx, &notified)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(restInterval, interval)):
		}
	}
}

// look asks for all secrets side by side: one that takes its time delays no other.
func (s *Store) look(ctx context.Context, notified *sync.WaitGroup) {
	s.mu.Lock()
	all := make([]*held, 0, len(s.secrets))
	for _, h := range s.secrets {
		all = append(all, h)
	}
	s.mu.Unlock()
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, h := range all {
		asking.Go(func() {
			h.turn <- struct{}{} // Get has it only for as long as the chain takes
			s.move(h)
			defer s.moved(h)
			changed, _ := s.ask(ctx, h)
			<-h.turn
			if !changed {
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			h.moving += len(h.notify)
			for _, f := range h.notify {
				notified.Go(func() {
					defer s.moved(h)
					f()
				})
			}
		})
	}
}

// move has Status show what is in use now, until moved was called as often.
func (s *Store) move(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.moving++; h.moving == 1 {
		used := h.status
		h.used = &used
	}
}

// moved tells that one of those in notify has returned, or that there is nothing
// to tell them.
func (s *Store) moved(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.moving--; h.moving == 0 {
		h.used = nil
	}
}

// Status lists the secrets that were asked for, by name.
func (s *Store) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.secrets))
	for _, h := range s.secrets {
		status := h.status
		if h.used != nil {
			status.Source, status.Version, status.Since = h.used.Source, h.used.Version, h.used.Since
		}
		all = append(all, status)
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// ask asks the chain and keeps what it answers, unless that is a downgrade. The
// caller has h's turn. The error is nil if h has a value, from now or before.
func (s *Store) ask(ctx context.Context, h *held) (changed bool, err error) {
	a, err := s.chain.ask(ctx, h.status.Name)
	if ctx.Err() != nil {
		return false, fmt.Errorf("looking up secret %s: %w", h.status.Name, ctx.Err()) // says nothing of the secret
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := h.status.Source != ""
	if err == nil && found && a.link > h.link {
		err = fmt.Errorf("%s does not answer any more, only %s would", h.status.Source, a.value.Source())
		if a.passed != nil {
			err = fmt.Errorf("%w: %w", err, a.passed)
		}
	}
	if err != nil {
		s.failed(h, err)
		if found {
			err = nil
		}
		return false, err
	}
	return s.found(h, a), nil
}

// found keeps an answer and tells whether its text is a new one. The caller has mu.
func (s *Store) found(h *held, a answer) (changed bool) {
	name, v := h.status.Name, a.value
	changed = h.status.Source == "" || !h.value.same(v)
	moved := changed || h.status.Source != v.Source() || h.status.Version != v.Version()
	problem := h.status.Problem
	h.value, h.link = v, a.link
	h.status.Source, h.status.Version, h.status.Downgraded, h.status.Problem = v.Source(), v.Version(), false, ""
	if moved {
		h.status.Since = time.Now()
		s.log.Info("secret resolved", "secret", name, "source", v.Source(), "version", v.Version())
	}
	switch {
	case a.passed != nil:
		h.status.Downgraded, h.status.Problem = true, a.passed.Error()
		if problem == "" {
			s.log.Warn("secret is from a lower source, a higher one cannot be asked", "secret", name, "source", v.Source(), "error", a.passed)
		}
	case problem != "":
		s.log.Info("secret is answered again", "secret", name, "source", v.Source(), "version", v.Version())
	}
	return changed
}

// failed notes, and logs once, that a secret could not be looked up. The caller
// has mu.
func (s *Store) failed(h *held, err error) {
	found, logged := h.status.Source != "", h.status.Problem != ""
	h.status.Problem, h.status.Downgraded = err.Error(), found
	switch {
	case logged:
	case found:
		s.log.Warn("secret cannot be looked up, its last good value stays in use", "secret", h.status.Name, "source", h.status.Source, "error", err)
	case errors.Is(err, ErrNotFound): // the caller knows whether it needs it
	default:
		s.log.Warn("secret cannot be looked up", "secret", h.status.Name, "error", err)
	}
}

func (s *Store) current(h *held) (v Value, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.value, h.status.Source != ""
}

func (s *Store) hold(name string) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.secrets[name]
	if h == nil {
		h = &held{turn: make(chan struct{}, 1), status: Status{Name: name}}
		s.secrets[name] = h
	}
	return h
}
