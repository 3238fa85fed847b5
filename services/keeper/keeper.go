// Package keeper trims RAW, DECODED and COMMANDS, oldest messages first, so that consumed
// messages never leave too little room for new ones (design 5.5). It removes only messages
// that every durable consumer of a stream has acknowledged: by age, and by size if a stream is
// above its share. A message that is not acknowledged stays, however old it is. If such
// messages fill a stream, the stream refuses new ones; the keeper raises an alarm long before.
//
// It only looks at the state of streams and consumers, and has no state that must survive: it
// does not matter if several keepers run, or if none ran for a while.
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
	// Filling is the kind of the keeper's alarm.
	Filling = "stream_filling"

	// commandHistory is how long COMMANDS keeps commands that have their outcome.
	commandHistory = time.Hour
	// alarmReader is the alarm service's consumer of DECODED.
	alarmReader = "alarm"
	// askTimeout is how long one look at a stream may take.
	askTimeout = 10 * time.Second
)

// trimmed is a stream that the keeper trims.
type trimmed struct {
	name string
	// reader is the consumer that must exist: without it nothing counts as acknowledged.
	reader  string
	tail    uint64 // number of last messages that always stay
	seen    uint64 // last sequence at the previous look
	history time.Duration
	growth  growth
	fills   time.Time // since when it is expected to become full; zero: it is not
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
	problems map[string]error // by stream, after the first look; nil: no problem
}

// New returns a keeper. It registers its metrics in reg.
func New(cfg Config, js jetstream.JetStream, reg prometheus.Registerer, log *slog.Logger) (*Keeper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	m := newMetrics(reg)
	publish := func(one alarm.Alarm) error { return alarm.Publish(js.Conn(), one) }
	return &Keeper{
		cfg: cfg, js: js, log: log, metrics: m,
		alarms: alarm.NewBoard(serviceName, []string{Filling}, publish, m.alarms, log),
		streams: []*trimmed{
			{name: stream.Raw, reader: stream.StageDecoder, tail: stream.RawTail, history: cfg.RawHistory},
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

// Ready returns an error unless the last look at every stream succeeded and every stream has
// its reader.
func (k *Keeper) Ready(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.problems) < len(k.streams) {
		return errors.New("starting: not all streams were looked at yet")
	}
	var all error
	for _, s := range k.streams {
		all = errors.Join(all, k.problems[s.name])
	}
	return all
}

// Alarms lists the raised alarms.
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

// note stores the result of a look for Ready, and logs a change.
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

// look trims the stream once, and returns when to look again.
func (k *Keeper) look(ctx context.Context, s *trimmed) (pause time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	current, err := k.js.Stream(ctx, s.name)
	if err != nil {
		return retryPause, fmt.Errorf("asking for stream %s: %w", s.name, err)
	}
	// The stream is read first: a consumer without pending messages has had all up to its end.
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
		return stepPause, nil
	}
	return f.pause(), nil
}

// acknowledged returns the sequence up to which every durable consumer has acknowledged all
// messages, and the consumer that is furthest behind.
func (k *Keeper) acknowledged(ctx context.Context, s *trimmed, last uint64) (floor uint64, slowest string, err error) {
	consumers, err := k.consumers(ctx, s.name)
	if err != nil {
		return 0, "", err
	}
	floor = last
	found := false
	for _, c := range consumers {
		if c.Config.Durable == "" {
			continue // it only reads
		}
		if s.name == stream.Decoded && c.Name == alarmReader {
			continue // alarms never hold up the data path: what they miss is lost to them alone
		}
		found = found || c.Name == s.reader
		had := c.AckFloor.Stream
		if c.NumPending == 0 && c.NumAckPending == 0 {
			// AckFloor does not advance over messages that were removed or do not match the
			// consumer's filter. NumPending alone is not enough: the server adds a new message to
			// it a moment after it has stored the message.
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
		return 0, "", fmt.Errorf("stream %s has no consumer %s, so it is not trimmed: create the consumer with `f2mesh setup --streams`", s.name, s.reader)
	}
	return floor, slowest, nil
}

// consumers lists all consumers of a stream. It returns an error if one does not respond.
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
			return nil, fmt.Errorf("stream %s has %d consumers, but only %d respond", name, page.Total, len(all))
		}
	}
}

// report updates the metrics of the backlog, and raises or clears the alarm.
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
		k.alarms.Raise(Filling, s.name, fmt.Sprintf("%.0f%% of %.1f MiB wait for consumer %s; at this rate the stream is full in %s, and then the stages before it wait",
			100*share, limit/(1<<20), slowest, left.Round(time.Second)))
	case share < fillingFrom/2:
		k.alarms.Clear(Filling, s.name)
	}
}
