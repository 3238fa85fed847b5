package secret

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// pollInterval is how often Run asks the chain again, give or take a fifth: KV
// v2 has no push (design 8).
const pollInterval = 15 * time.Second

// lookupTimeout bounds one question to the chain. A source that is slow must not
// keep data from flowing with the last good value.
const lookupTimeout = 5 * time.Second

// Status is where a secret's current value is from, without the value.
type Status struct {
	Name    string    `json:"name"`
	Source  string    `json:"source"`
	Version string    `json:"version"`
	Since   time.Time `json:"since"` // when this process first had this version
	// Downgraded is set while a source that has answered before does not: the last
	// good value stays in use.
	Downgraded bool   `json:"downgraded"`
	Problem    string `json:"problem,omitempty"` // why the last look failed, "" if it did not
}

// Store holds the secrets that one service uses: the last good value of each,
// which stays when the chain cannot answer or would answer from a lower link. It
// is safe for concurrent use.
type Store struct {
	chain Chain
	log   *slog.Logger
	look  chan struct{} // asks Run to look at once

	mu      sync.Mutex // guards the fields below
	secrets map[string]*held
}

type held struct {
	value  Value
	status Status
	rank   int // of the link that answered
	notify []func()
}

// NewStore returns a store without secrets; Get fills it.
func NewStore(chain Chain, log *slog.Logger) *Store {
	return &Store{chain: chain, log: log, look: make(chan struct{}, 1), secrets: map[string]*held{}}
}

// Get returns the current value, from memory once it was found.
func (s *Store) Get(ctx context.Context, name string) (Value, error) {
	s.mu.Lock()
	h := s.secrets[name]
	s.mu.Unlock()
	if h != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if h.status.Source != "" {
			return h.value, nil
		}
	}
	return s.resolve(ctx, name)
}

// Notify calls changed, from a goroutine of its own, after each change of the
// secret. changed gets the value by Get.
func (s *Store) Notify(name string, changed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held(name)
	h.notify = append(h.notify, changed)
}

// Refused tells that a server did not take the current value of a secret: Run
// looks at once instead of at its next poll.
func (s *Store) Refused() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// Run looks for new values until ctx ends, and then returns nil.
func (s *Store) Run(ctx context.Context) error {
	for {
		wait := time.Duration((0.8 + 0.4*rand.Float64()) * float64(pollInterval)) //nolint:gosec // spreads load, protects nothing
		select {
		case <-ctx.Done():
			return nil
		case <-s.look:
		case <-time.After(wait):
		}
		for _, status := range s.Status() {
			_, _ = s.resolve(ctx, status.Name) // told by Status and the log
		}
		select { // at most one look a second, however many connections are refused
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// Status lists the secrets that were asked for, by name.
func (s *Store) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.secrets))
	for _, h := range s.secrets {
		all = append(all, h.status)
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// resolve asks the chain and keeps what it answers, unless that is a downgrade.
func (s *Store) resolve(ctx context.Context, name string) (Value, error) {
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	value, rank, err := s.chain.lookup(bounded, name)
	cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held(name)
	had := h.status.Source != ""
	switch {
	case ctx.Err() != nil && !had:
		return Value{}, ctx.Err()
	case err == nil && had && rank > h.rank:
		err = errors.New(h.status.Source + " no longer answers, and " + value.Source() + " would")
	}
	if err != nil {
		s.failed(h, err)
		if had {
			return h.value, nil
		}
		return Value{}, err
	}
	if h.status.Problem != "" && had {
		s.log.Info("secret is answered again", "secret", name, "source", value.Source(), "version", value.Version())
	}
	changed := !had || !h.value.same(value)
	h.value, h.rank = value, rank
	h.status.Source, h.status.Version, h.status.Downgraded, h.status.Problem = value.Source(), value.Version(), false, ""
	if changed {
		h.status.Since = time.Now()
		s.log.Info("secret resolved", "secret", name, "source", value.Source(), "version", value.Version())
		if had {
			for _, f := range h.notify {
				go f()
			}
		}
	}
	return value, nil
}

// failed notes, and logs once, that a secret could not be looked up.
func (s *Store) failed(h *held, err error) {
	if h.status.Problem == "" {
		s.log.Warn("secret cannot be looked up, its last good value stays in use", "secret", h.status.Name, "source", h.status.Source, "error", err)
	}
	h.status.Problem = err.Error()
	h.status.Downgraded = h.status.Source != ""
}

func (s *Store) held(name string) *held {
	h := s.secrets[name]
	if h == nil {
		h = &held{status: Status{Name: name}}
		s.secrets[name] = h
	}
	return h
}
