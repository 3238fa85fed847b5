// Package supervisor keeps the parts of a mesh running on one machine: it
// starts them in order, starts one again that has failed, and stops them in
// reverse order. A part is a function; whether it is a goroutine or waits for
// a child process is its own business.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The wait before a part starts again doubles each time.
const (
	firstWait   = 200 * time.Millisecond
	longestWait = 10 * time.Second
	// shortWait is the longest wait of a part that was ready, or whose start took longStart.
	shortWait = 400 * time.Millisecond
	longStart = 2 * time.Second
)

// Run runs a part until ctx ends. It calls ready once it does its work, and
// returns nil only if ctx has ended.
type Run func(ctx context.Context, ready func()) error

// Supervisor holds the parts. Its methods are safe for concurrent use.
type Supervisor struct {
	log *slog.Logger

	mu    sync.Mutex // guards order and parts
	order []string
	parts map[string]*part
}

type part struct {
	run    Run
	mu     sync.Mutex // held while starting or stopping
	cancel context.CancelFunc
	done   chan struct{}
}

// New returns a supervisor without parts.
func New(log *slog.Logger) *Supervisor {
	return &Supervisor{log: log, parts: map[string]*part{}}
}

// Add names a part. Parts start in the order in which they are added.
func (s *Supervisor) Add(name string, run Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = append(s.order, name)
	s.parts[name] = &part{run: run}
}

// StartAll starts the parts one after the other, each when the one before is
// ready. An error names the part; those started before go on.
func (s *Supervisor) StartAll(ctx context.Context) error {
	for _, name := range s.Names() {
		if err := s.Start(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Start starts a part and returns when it is ready, or its first attempt has
// failed, or ctx ends. A part that runs already is left alone.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	p, err := s.part(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		return nil
	}
	// The part's life is not that of the call which starts it.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel, p.done = cancel, make(chan struct{})
	first := make(chan error, 1)
	go s.keep(running, name, p.run, first, p.done)
	select {
	case err = <-first:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		<-p.done
		p.cancel = nil
		return fmt.Errorf("starting %s: %w", name, err)
	}
	return nil
}

// keep runs a part again and again; first gets nil when it is ready, or the
// error of the first attempt, which is the last if it was never ready.
func (s *Supervisor) keep(ctx context.Context, name string, run Run, first chan<- error, done chan<- struct{}) {
	defer close(done)
	var once sync.Once
	answer := func(err error) { once.Do(func() { first <- err }) }
	var wasReady atomic.Bool // the part may call ready from any goroutine
	ready := func() { wasReady.Store(true); answer(nil) }
	wait := firstWait
	for {
		started := time.Now()
		var attemptReady atomic.Bool
		var err error
		// The label tells the parts apart in a CPU profile.
		pprof.Do(ctx, pprof.Labels("part", name), func(ctx context.Context) {
			err = run(ctx, func() { attemptReady.Store(true); ready() })
		})
		if ctx.Err() != nil {
			answer(ctx.Err())
			return
		}
		if err == nil {
			err = errors.New("the process exited unexpectedly")
		}
		if !wasReady.Load() {
			answer(err)
			return
		}
		switch ran := time.Since(started); {
		case ran > time.Minute:
			wait = firstWait
		case attemptReady.Load() || ran > longStart: // others wait for it, and it does not fail at once
			wait = min(wait, shortWait)
		}
		s.log.Error("part failed, starting it again", "part", name, "error", err, "retry_in", wait.String())
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, longestWait)
	}
}

// Stop stops a part and returns when it has ended. A part that does not run is
// left alone.
func (s *Supervisor) Stop(name string) error {
	p, err := s.part(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel == nil {
		return nil
	}
	p.cancel()
	<-p.done
	p.cancel = nil
	return nil
}

// StopAll stops the parts in reverse order; each can still reach those that
// were started before it.
func (s *Supervisor) StopAll() {
	names := s.Names()
	for _, name := range slices.Backward(names) {
		_ = s.Stop(name) // the name is known
	}
}

// Names lists the parts in the order in which they start.
func (s *Supervisor) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.order...)
}

func (s *Supervisor) part(name string) (*part, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parts[name]
	if p == nil {
		return nil, fmt.Errorf("unknown part %q; known: %v", name, s.order)
	}
	return p, nil
}
