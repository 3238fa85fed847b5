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

// progress knows what the decoder waits for. It is safe for concurrent use.
type progress struct {
	mu       sync.Mutex
	stores   map[*string]time.Time // the streams that have not yet stored something, since when
	ackFloor uint64
	moved    time.Time // when ackFloor did, or nothing was waiting
}

// storing runs store, which stores something on a stream.
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

// look says what does not get on.
func (p *progress) look(now time.Time, info *jetstream.ConsumerInfo) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for stream, since := range p.stores {
		if waited := now.Sub(since); waited > slowAfter {
			return fmt.Errorf("stream %s has not stored what it was given %s ago: see the log for its errors, and whether it is full", *stream, waited.Round(time.Second))
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

// Ready proves that JetStream and the metadata's PostgreSQL answer, and that what
// waits on RAW is decoded and stored.
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
		return fmt.Errorf("asking JetStream for the place in %s: %w", stream.Raw, err)
	}
	if err := d.progress.look(time.Now(), info); err != nil {
		return err
	}
	if err := run.pool.Ping(ctx); err != nil {
		return fmt.Errorf("asking the metadata database: %w", err)
	}
	return d.streams.Ready(ctx, stream.Decoded)
}
