package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// holdLease is how long consumers stay paused after the last renewal: the process
	// that holds them may die.
	holdLease = 30 * time.Second
	// holdSettle bounds the wait for what consumers had delivered before.
	holdSettle = 15 * time.Second
)

// Hold is a pause of all durable consumers of the account: nothing moves from one
// stream to the next. Publishers are not affected, what they publish waits. Release
// ends it; if the process dies, it ends by itself within half a minute.
type Hold struct {
	js        jetstream.JetStream
	consumers []heldConsumer
	stop      context.CancelFunc
	renewal   sync.WaitGroup

	mu     sync.Mutex
	broken error // of a renewal
}

type heldConsumer struct {
	stream, name string
	ackFloor     uint64 // when it had come to rest
}

func (c heldConsumer) String() string { return "consumer " + c.name + " of " + c.stream }

// NewHold pauses the consumers of the streams and waits until they have nothing
// delivered that is not acknowledged, but not for long: what is left counts as not
// done, and is delivered again.
func NewHold(ctx context.Context, js jetstream.JetStream, streams []string) (*Hold, error) {
	h := &Hold{js: js}
	for _, name := range streams {
		all, err := positions(ctx, js, name)
		if err != nil {
			return nil, fmt.Errorf("pausing the consumers of %s: %w", name, err)
		}
		for _, p := range all {
			h.consumers = append(h.consumers, heldConsumer{stream: name, name: p.Name})
		}
	}
	if err := h.pause(ctx); err != nil {
		return nil, errors.Join(err, h.Release(ctx))
	}
	renewing, stop := context.WithCancel(ctx)
	h.stop = stop
	h.renewal.Go(func() { h.renew(renewing) })
	if err := h.settle(ctx); err != nil {
		return nil, errors.Join(err, h.Release(ctx))
	}
	return h, nil
}

func (h *Hold) pause(ctx context.Context) error {
	for i := range h.consumers {
		c := &h.consumers[i] // settle may be writing its ackFloor
		if _, err := h.js.PauseConsumer(ctx, c.stream, c.name, time.Now().Add(holdLease)); err != nil {
			return fmt.Errorf("pausing %v: %w", c, err)
		}
	}
	return nil
}

func (h *Hold) renew(ctx context.Context) {
	ticker := time.NewTicker(holdLease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := h.pause(ctx); err != nil && ctx.Err() == nil {
			h.mu.Lock()
			h.broken = err
			h.mu.Unlock()
			return
		}
	}
}

func (h *Hold) settle(ctx context.Context) error {
	deadline := time.Now().Add(holdSettle)
	for i := range h.consumers {
		c := &h.consumers[i]
		for {
			consumer, err := h.js.Consumer(ctx, c.stream, c.name)
			if err != nil {
				return fmt.Errorf("waiting for %v: %w", c, err)
			}
			info := consumer.CachedInfo()
			if c.ackFloor = info.AckFloor.Stream; info.NumAckPending == 0 || time.Now().After(deadline) {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// Check reports whether the consumers have been still until now: nobody else resumed
// one, no renewal came too late, and nothing that was in hand was acknowledged.
func (h *Hold) Check(ctx context.Context) error {
	h.mu.Lock()
	broken := h.broken
	h.mu.Unlock()
	if broken != nil {
		return broken
	}
	for _, c := range h.consumers {
		consumer, err := h.js.Consumer(ctx, c.stream, c.name)
		if err != nil {
			return fmt.Errorf("looking at %v: %w", c, err)
		}
		// It may have gone on and be paused again: by a renewal, or by another Hold.
		if info := consumer.CachedInfo(); !info.Paused || info.AckFloor.Stream != c.ackFloor {
			return fmt.Errorf("%v processed messages during the pause: try again", c)
		}
	}
	return nil
}

// Release lets the consumers go on. Calling it again does nothing.
func (h *Hold) Release(ctx context.Context) (problems error) {
	if h.stop != nil {
		h.stop()
		h.renewal.Wait()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdLease)
	defer cancel()
	for _, c := range h.consumers {
		if _, err := h.js.ResumeConsumer(ctx, c.stream, c.name); err != nil {
			problems = errors.Join(problems, fmt.Errorf("resuming %v: %w", c, err))
		}
	}
	h.consumers = nil
	return problems
}
