// Package alarm evaluates rules on readings and events, and keeps the alarms that people look
// at. The stream ALARM is the truth: the last message of a subject is the alarm's state, and each
// change states the entry that it follows. So an alarm is raised once, whatever is delivered
// again, however often the service stops, and if two of them run.
//
// It reads DECODED through a consumer of its own, and acknowledges a message after what follows
// from it is stored. It never holds up the data path: the keeper trims DECODED without regard to
// this consumer.
package alarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	board "github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// TestSubject is where the service notifies a receiver, whose name is the request, of a test.
const TestSubject = "f2.alarms.test"

// RulesInvalid is raised while the rules file cannot be used, and the rules before it apply.
const RulesInvalid = "rules_invalid"

const (
	// most messages that are evaluated at once, and bytes of them in flight.
	most      = 1000
	mostBytes = 16 << 20
	tickEvery = 250 * time.Millisecond
	rulesPoll = 2 * time.Second
)

// Server is one alarm service; run it once.
type Server struct {
	cfg     Config
	secrets *secret.Store
	streams *stream.Client
	log     *slog.Logger
	metrics *metrics
	board   *board.Board
	store   *store
	rules   *rulesFile

	mu sync.Mutex // guards rules.current

	reports  chan *nats.Msg // of services
	listings chan listing
	consumer atomic.Pointer[jetstream.Consumer]
}

// New returns a service. Receivers' secrets are in secrets. It registers its metrics in reg.
func New(cfg Config, secrets *secret.Store, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("alarm: %w", err)
	}
	m := newMetrics(reg)
	publish := func(one board.Alarm) error { return board.Publish(streams.JetStream().Conn(), one) }
	s := &Server{
		cfg: cfg, secrets: secrets, streams: streams, log: log, metrics: m, store: newStore(streams, m, log), reports: make(chan *nats.Msg, 1000), listings: make(chan listing),
		board: board.NewBoard(serviceName, []string{RulesInvalid, ReceiverFailing}, publish, m.alarms, log), rules: &rulesFile{path: cfg.Rules, optional: cfg.Optional},
	}
	if _, err := s.rules.read(); err != nil {
		return nil, fmt.Errorf("alarm: %w", err)
	}
	return s, nil
}

// Alarms lists the alarms of this service itself.
func (s *Server) Alarms() board.Listing { return s.board.Raised() }

// Ready returns an error unless the service evaluates messages.
func (s *Server) Ready(ctx context.Context) error {
	consumer := s.consumer.Load()
	if consumer == nil {
		return errors.New("starting: reading the alarms that are known")
	}
	if _, err := (*consumer).Info(ctx); err != nil {
		return fmt.Errorf("asking JetStream for the consumer of %s: %w", stream.Decoded, err)
	}
	return nil
}

// Run evaluates until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := s.streams.Wait(ctx, stream.Alarm, stream.Latest); err != nil {
		return err
	}
	consumer, err := s.streams.Open(ctx, stream.Decoded, serviceName)
	if err != nil {
		return err
	}
	if err := s.store.load(ctx); err != nil {
		return err
	}
	e := newEvaluator(s.rules.current.Rules, s.store, s.metrics)
	if err := readAll(ctx, s.streams.JetStream(), stream.Latest, latestPrefix+">", e.remember); err != nil {
		return err
	}
	messages, release, err := s.streams.Consume(ctx, consumer, most, mostBytes)
	if err != nil {
		return err
	}
	defer release()
	s.consumer.Store(&consumer)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.evaluate(ctx, e, consumer, messages) })
	group.Go(func() error { return s.hear(ctx) })
	group.Go(func() error {
		return (&outbox{s: s, waiting: map[uint64]*posting{}, lanes: map[string]chan *letter{}}).run(ctx)
	})
	return group.Wait()
}

// evaluate is the loop that all changes are made in.
func (s *Server) evaluate(ctx context.Context, e *evaluator, consumer jetstream.Consumer, messages <-chan jetstream.Msg) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	changes := map[string][]rewrite{}
	e.retire(time.Now().UTC(), changes)
	place := &order{streams: s.streams, consumer: consumer}
	var looked, kept time.Time // looked at the rules; when to look at what ALARM is about to drop
	for {
		if err := s.store.apply(ctx, changes); err != nil {
			return stopped(ctx, err)
		}
		clear(changes)
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-messages:
			if !ok {
				return stopped(ctx, stream.ErrConsumerGone)
			}
			if err := s.see(ctx, e, place, collect(m, messages), changes); err != nil {
				return stopped(ctx, err)
			}
		case m := <-s.reports:
			s.reported(m, time.Now().UTC(), changes)
		case l := <-s.listings:
			s.listed(&l, changes)
		case now := <-tick.C:
			if at := place.ask(ctx); at.caughtUp && len(messages) == 0 {
				e.tick(now.UTC().Add(-s.cfg.Settle), at.pinned, changes)
			}
			if now.Sub(looked) >= rulesPoll {
				looked = now
				s.reload(e, now.UTC(), changes)
				s.store.show()
			}
			if now.After(kept) {
				next, err := s.store.keep(ctx)
				if err != nil && ctx.Err() == nil {
					s.log.Warn("alarms that are about to be dropped were not stored again, will retry", "error", err)
				}
				kept = now.Add(next)
			}
		}
	}
}

// see evaluates messages, stores what follows and acknowledges them.
func (s *Server) see(ctx context.Context, e *evaluator, place *order, messages []jetstream.Msg, changes map[string][]rewrite) error {
	done := messages[:0]
	for _, m := range messages {
		what, err := place.look(ctx, m)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("messages come again", "error", err)
		}
		switch what {
		case takeOver:
			if err := s.store.load(ctx); err != nil {
				return err
			}
			e.see(m, changes)
		case accept:
			e.see(m, changes)
		case early:
			continue
		}
		done = append(done, m)
	}
	if err := s.store.apply(ctx, changes); err != nil {
		return err
	}
	clear(changes)
	if err := s.streams.Acknowledge(ctx, place.acknowledged(done)...); err != nil && ctx.Err() == nil {
		s.log.Warn("messages come again", "error", err) // and change nothing
	}
	return nil
}

// stopped is the error of a service: none if it was stopped.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// collect returns m and what came with it.
func collect(m jetstream.Msg, messages <-chan jetstream.Msg) []jetstream.Msg {
	all := []jetstream.Msg{m}
	for len(all) < most {
		select {
		case m, ok := <-messages:
			if !ok {
				return all
			}
			all = append(all, m)
		default:
			return all
		}
	}
	return all
}

// reload reads the rules again if the file has changed. If they are invalid, those before stay.
func (s *Server) reload(e *evaluator, now time.Time, changes map[string][]rewrite) {
	s.mu.Lock()
	changed, err := s.rules.read()
	s.mu.Unlock()
	if err != nil {
		s.board.Keep(RulesInvalid, map[string]string{"rules": err.Error() + "; the rules before it stay in force"})
		return
	}
	s.board.Keep(RulesInvalid, nil)
	if changed {
		e.use(s.rules.current.Rules)
		e.retire(now, changes)
		s.log.Info("alarm rules changed", "rules", len(s.rules.current.Rules))
	}
}
