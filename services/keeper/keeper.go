// Package keeper trims RAW, DECODED and COMMANDS, oldest first, so that what has been
// consumed never stops what is new (design 5.5). It removes what every durable
// consumer of a stream has acknowledged, and nothing else: by age, and by size where a
// stream is fuller than its share. A message that somebody has yet to acknowledge
// stays, however old it is; where those fill a stream, it refuses new ones, and the
// keeper has raised an alarm long before.
//
// It knows streams and consumers by their state alone, reads no message, and keeps
// nothing itself: several keepers, or one that was away, do the same.
package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// Filling is the kind of its alarm.
	Filling = "stream_filling"

	// rawTail is how many of the last messages of RAW stay, for the bridge looks its
	// broker's redeliveries up among them: twice what the broker may have in flight.
	rawTail = 16384
	// commandHistory is how long COMMANDS keeps commands that have their outcome.
	commandHistory = time.Hour
	// askTimeout bounds one question to the server.
	askTimeout = 10 * time.Second
)

// trimmed is a stream that the keeper trims.
type trimmed struct {
	name string
	// reader is the consumer without which nothing is trimmed: one that is gone has
	// acknowledged nothing.
	reader  string
	tail    uint64 // messages that stay
	seen    uint64 // its last message at the look before
	history time.Duration
	growth  growth
	fills   time.Time // since when it is about to be full; zero: it is not
}

// Keeper is one keeper; run it once.
type Keeper struct {
	cfg     Config
	js      jetstream.JetStream
	log     *slog.Logger
	metrics *metrics
	alarms  *alarm.Board
	streams []*trimmed

	mu       sync.Mutex
	problems map[string]error // by stream; nil: looked at, and all is well
}

// New returns a keeper. Its metrics are in reg.
func New(cfg Config, js jetstream.JetStream, reg prometheus.Registerer, log *slog.Logger) (*Keeper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	m := newMetrics(reg)
	publish := func(one alarm.Alarm) error { return alarm.Publish(js.Conn(), one) }
	return &Keeper{
		cfg: cfg, js: js, log: log, metrics: m,
		alarms: alarm.NewBoard(service, []string{Filling}, publish, m.alarms, log),
		streams: []*trimmed{
			{name: stream.Raw, reader: stream.StageDecoder, tail: rawTail, history: cfg.RawHistory},
			{name: stream.Decoded, reader: stream.StageWriter, history: cfg.DecodedHistory},
			{name: stream.Commands, reader: stream.StageBridge, history: commandHistory},
		},
		problems: map[string]error{},
	}, nil
}

// Run trims until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var keeping sync.WaitGroup
	for _, s := range k.streams {
		keeping.Go(func() { k.keep(ctx, s) })
	}
	keeping.Wait()
	return nil
}

// Ready tells whether all streams could be looked at lately, and have their readers.
func (k *Keeper) Ready(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.problems) < len(k.streams) {
		return errors.New("has not looked yet")
	}
	var all error
	for _, s := range k.streams {
		all = errors.Join(all, k.problems[s.name])
	}
	return all
}

// Alarms lists what is raised now.
func (k *Keeper) Alarms() alarm.Listing { return k.alarms.Raised() }

func (k *Keeper) keep(ctx context.Context, s *trimmed) {
	for {
		pause, err := k.look(ctx, s)
		if ctx.Err() != nil {
			return
		}
		k.note(s, err)
		k.alarms.Resend()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// note keeps the problem for Ready, and logs a new one.
func (k *Keeper) note(s *trimmed, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.problems[s.name]
	k.problems[s.name] = err
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		k.log.Warn("stream is not trimmed", "stream", s.name, "error", err)
	case err == nil && before != nil:
		k.log.Info("stream is trimmed again", "stream", s.name)
	}
}

// look trims once, and says when to look again.
func (k *Keeper) look(ctx context.Context, s *trimmed) (pause time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	current, err := k.js.Stream(ctx, s.name)
	if err != nil {
		return retryPause, fmt.Errorf("asking for stream %s: %w", s.name, err)
	}
	// The stream first: what a consumer has nothing left of, it has had up to here.
	state, config := current.CachedInfo().State, current.CachedInfo().Config
	floor, slowest, err := k.acknowledged(ctx, s, state.LastSeq)
	if err != nil {
		return retryPause, err
	}
	now := time.Now()
	f := fill{limit: config.MaxBytes, state: &state, floor: floor}
	k.report(s, &f, slowest, now)
	to, more := f.trim(k.cfg.Share, s.tail, now.Add(-s.history))
	if to < state.FirstSeq || state.Msgs == 0 {
		return f.pause(), nil
	}
	if err := current.Purge(ctx, jetstream.WithPurgeSequence(to+1)); err != nil {
		return retryPause, fmt.Errorf("trimming stream %s: %w", s.name, err)
	}
	k.metrics.trimmed.WithLabelValues(s.name).Add(float64(to + 1 - state.FirstSeq))
	if more {
		return 0, nil
	}
	return f.pause(), nil
}

// acknowledged is the sequence up to which every durable consumer of the stream has
// acknowledged everything, and the consumer that is furthest behind.
func (k *Keeper) acknowledged(ctx context.Context, s *trimmed, last uint64) (floor uint64, slowest string, err error) {
	consumers, err := k.consumers(ctx, s.name)
	if err != nil {
		return 0, "", err
	}
	floor = last
	found := false
	for _, c := range consumers {
		if c.Config.Durable == "" {
			continue // of somebody who only looks
		}
		found = found || c.Name == s.reader
		had := c.AckFloor.Stream
		if c.NumPending == 0 && c.NumAckPending == 0 {
			// The floor stays behind where messages were removed or are for others. NumPending
			// alone does not tell: the server counts a new message there a moment after it
			// has stored it.
			had = max(had, c.Delivered.Stream)
			if c.Name != s.reader {
				had = max(had, s.seen)
			}
		}
		if had < floor {
			floor, slowest = had, c.Name
		}
	}
	s.seen = last
	if !found {
		return 0, "", fmt.Errorf("stream %s has no consumer %s, so that nothing counts as acknowledged: `f2mesh setup --streams` makes it", s.name, s.reader)
	}
	return floor, slowest, nil
}

// consumers lists all of a stream. One that does not answer now has a place, too: then
// it is an error.
func (k *Keeper) consumers(ctx context.Context, name string) (all []*jetstream.ConsumerInfo, err error) {
	for {
		request := fmt.Appendf(nil, `{"offset":%d}`, len(all))
		m, err := k.js.Conn().RequestWithContext(ctx, "$JS.API.CONSUMER.LIST."+name, request)
		if err != nil {
			return nil, fmt.Errorf("asking for the consumers of %s: %w", name, err)
		}
		var page struct {
			Error     *jetstream.APIError       `json:"error"`
			Total     int                       `json:"total"`
			Consumers []*jetstream.ConsumerInfo `json:"consumers"`
		}
		if err := json.Unmarshal(m.Data, &page); err != nil {
			return nil, fmt.Errorf("asking for the consumers of %s: %w", name, err)
		}
		if page.Error != nil {
			return nil, fmt.Errorf("asking for the consumers of %s: %w", name, page.Error)
		}
		switch all = append(all, page.Consumers...); {
		case len(all) >= page.Total:
			return all, nil
		case len(page.Consumers) == 0:
			return nil, fmt.Errorf("of %d consumers of stream %s only %d answer", page.Total, name, len(all))
		}
	}
}

// report shows how full the stream is of what waits, and raises the alarm.
func (k *Keeper) report(s *trimmed, f *fill, slowest string, now time.Time) {
	backlog, limit := f.backlog(), float64(f.limit)
	s.growth.add(now, backlog, float64(f.state.LastSeq)*f.mean())
	left, fills := s.growth.full(limit - backlog)
	k.metrics.show(s, f, left, fills, now)
	if f.limit <= 0 {
		return
	}
	share := backlog / limit
	if share < fillingFrom || !fills || left >= k.cfg.FillingWithin {
		s.fills = time.Time{}
	} else if s.fills.IsZero() {
		s.fills = now
	}
	switch {
	case !s.fills.IsZero() && now.Sub(s.fills) >= min(steady, left/4):
		k.alarms.Raise(Filling, s.name, fmt.Sprintf("%.0f%% of %.1f MiB wait for consumer %s; at this rate it is full in %s, and then the stages before it wait",
			100*share, limit/(1<<20), slowest, left.Round(time.Second)))
	case share < fillingFrom/2:
		k.alarms.Clear(Filling, s.name)
	}
}
