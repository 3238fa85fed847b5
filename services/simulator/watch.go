package simulator

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// progressEvery is how often a change of the number of connections is logged.
	progressEvery = 2 * time.Second
	// holdEvery is how often the simulator looks whether to pause.
	holdEvery = 20 * time.Millisecond
	// leastPatience is how long the broker may acknowledge nothing before the simulator
	// is not ready.
	leastPatience = 10 * time.Second
)

// progress remembers when the number of acknowledged messages last changed. It is safe
// for concurrent use.
type progress struct {
	mu           sync.Mutex
	acknowledged int64
	at           time.Time
}

// Ready reports whether the broker acknowledges messages.
func (s *Simulator) Ready(context.Context) error {
	p := &s.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := s.counters.allAcknowledged(); n != p.acknowledged {
		p.acknowledged, p.at = n, time.Now()
	}
	if time.Since(p.at) > max(leastPatience, 3*s.cfg.Interval) {
		return errors.New("the broker acknowledges no messages")
	}
	return nil
}

// watchConnections logs the connections of the fleet as a whole: a line for each of
// thousands of controllers would say less.
func (s *Simulator) watchConnections(ctx context.Context) {
	logged := int64(-1)
	every(ctx, progressEvery, func() {
		if n := s.connected.Load(); n != logged {
			logged = n
			s.logConnections(n)
		}
	})
}

func (s *Simulator) logConnections(n int64) {
	if n == int64(len(s.controllers)) {
		s.log.Info("all controllers connected", "controllers", n)
		return
	}
	args := []any{"connected", n, "controllers", len(s.controllers)}
	if err := s.lastError.Load(); err != nil {
		args = append(args, "last_error", *err)
	}
	s.log.Info("controllers connecting", args...)
}

// watchAhead pauses the fleet while too many messages wait for the bridge. Bursts with
// pauses cost all parts less than a trickle, so a pause ends when a quarter is left.
func (s *Simulator) watchAhead(ctx context.Context, devices []*device) {
	every(ctx, holdEvery, func() {
		ahead, held := s.counters.allAcknowledged()-s.cfg.Taken(), s.held.Load()
		hold := ahead > s.cfg.MaxAhead || held && ahead > s.cfg.MaxAhead/4
		s.held.Store(hold)
		if held && !hold {
			for _, d := range devices {
				d.window.signal()
			}
		}
	})
}

// every calls do at each interval until ctx ends.
func every(ctx context.Context, interval time.Duration, do func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}
