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

// progress sees whether messages wait and none is settled. It is safe for concurrent
// use.
type progress struct {
	mu      sync.Mutex
	settled uint64
	since   time.Time // when settled was seen for the first time with messages waiting; zero: none waits
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

// Ready proves that JetStream and the tables answer, that the tables take rows, and
// that what waits in DECODED goes on.
func (w *Writer) Ready(ctx context.Context) error {
	consumer := w.consumer.Load()
	if cause := w.waiting.reason(); cause != "" {
		return fmt.Errorf("the database does not take rows: %s", cause)
	}
	if consumer == nil {
		return errors.New("preparing the tables")
	}
	for _, table := range []string{measurementTable.name, eventTable.name} {
		if _, err := w.pool.Exec(ctx, "SELECT FROM "+table+" LIMIT 1"); err != nil {
			return fmt.Errorf("asking the tables: %w", err)
		}
	}
	info, err := (*consumer).Info(ctx)
	if err != nil {
		return fmt.Errorf("asking JetStream for the place in %s: %w", stream.Decoded, err)
	}
	pending := info.NumPending + uint64(max(0, info.NumAckPending))
	if stalled := w.progress.stalled(w.settled.Load(), pending, time.Now()); stalled >= stalledAfter {
		return fmt.Errorf("%d messages wait, and none has been written for %s", pending, stalled.Round(time.Second))
	}
	return nil
}

// reads notes which consumer the writer reads.
func (w *Writer) reads(consumer jetstream.Consumer) { w.consumer.Store(&consumer) }
