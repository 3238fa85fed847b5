package decoder

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// stalledAfter is how long messages may wait on RAW while none is acknowledged.
	stalledAfter = 30 * time.Second
	// slowAfter is how long a stream may take to store a batch.
	slowAfter = 10 * time.Second
)

// progress notices if the decoder waits too long. It is safe for concurrent use.
type progress struct {
	mu       sync.Mutex
	stores   map[*string]time.Time // the streams that are storing, since when
	ackFloor uint64
	moved    time.Time // when ackFloor last changed, or no message was waiting
}

// storing runs store, which stores messages on a stream.
func (p *progress) storing(stream string, store func() error) error {
	p.mu.Lock()
	if p.stores == nil {
		p.stores = map[*string]time.Time{}
	}
	p.stores[&stream] = time.Now()
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.stores, &stream)
	}()
	return store()
}

// look returns an error if the decoder makes no progress.
func (p *progress) look(now time.Time, info *jetstream.ConsumerInfo) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for stream, since := range p.stores {
		if waited := now.Sub(since); waited > slowAfter {
			return fmt.Errorf("storing on stream %s has taken %s so far: see the log for errors, and check whether the stream is full", *stream, waited.Round(time.Second))
		}
	}
	waiting := info.NumPending + uint64(info.NumAckPending) //nolint:gosec // not negative
	if waiting == 0 || info.AckFloor.Stream != p.ackFloor || p.moved.IsZero() {
		p.ackFloor, p.moved = info.AckFloor.Stream, now
	}
	if stood := now.Sub(p.moved); stood > stalledAfter {
		return fmt.Errorf("%d messages wait on %s, and none was acknowledged for %s", waiting, stream.Raw, stood.Round(time.Second))
	}
	return nil
}

// Ready returns an error unless JetStream and the metadata's PostgreSQL respond, and messages
// that wait on RAW are decoded and stored.
func (d *Decoder) Ready(ctx context.Context) error {
	run := d.running.Load()
	if run == nil {
		return errors.New("starting")
	}
	if why := d.room.full.Load(); why != nil {
		return errors.New(*why)
	}
	info, err := run.consumer.Info(ctx)
	if err != nil {
		return fmt.Errorf("asking JetStream for the consumer of %s: %w", stream.Raw, err)
	}
	if err := d.progress.look(time.Now(), info); err != nil {
		return err
	}
	if err := run.pool.Ping(ctx); err != nil {
		return fmt.Errorf("connecting to the metadata database: %w", err)
	}
	return d.streams.Ready(ctx, stream.Decoded)
}
