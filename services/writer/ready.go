package writer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream"
)

// stalledAfter is how long messages may wait while none is settled.
const stalledAfter = 30 * time.Second

// progress notices if messages wait and none is settled. It is safe for concurrent use.
type progress struct {
	mu      sync.Mutex
	settled uint64
	since   time.Time // since when settled has not changed while messages wait; zero: none waits
}

// stalled returns for how long messages have waited without one being settled.
func (p *progress) stalled(settled, pending uint64, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pending == 0 {
		p.since = time.Time{}
		return 0
	}
	if p.since.IsZero() || settled != p.settled {
		p.settled, p.since = settled, now
	}
	return now.Sub(p.since)
}

// Ready returns an error unless JetStream and the tables respond, the tables accept rows, and
// the messages that wait in DECODED are written.
func (w *Writer) Ready(ctx context.Context) error {
	consumer := w.consumer.Load()
	if cause := w.waiting.reason(); cause != "" {
		return fmt.Errorf("the database does not accept rows: %s", cause)
	}
	if consumer == nil {
		return errors.New("starting: preparing the tables")
	}
	for _, table := range []string{measurementTable.name, eventTable.name} {
		if _, err := w.pool.Exec(ctx, "SELECT FROM "+table+" LIMIT 1"); err != nil {
			return fmt.Errorf("reading table %s: %w", table, err)
		}
	}
	info, err := (*consumer).Info(ctx)
	if err != nil {
		return fmt.Errorf("asking JetStream for the consumer of %s: %w", stream.Decoded, err)
	}
	pending := info.NumPending + uint64(max(0, info.NumAckPending))
	if stalled := w.progress.stalled(w.settled.Load(), pending, time.Now()); stalled >= stalledAfter {
		return fmt.Errorf("%d messages wait on %s, and none has been written for %s", pending, stream.Decoded, stalled.Round(time.Second))
	}
	return nil
}

// reads sets the consumer that the writer reads.
func (w *Writer) reads(consumer jetstream.Consumer) { w.consumer.Store(&consumer) }
