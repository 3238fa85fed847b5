package soak

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// startTime bounds how long NATS may take to start.
	startTime = 5 * time.Minute
	// recoveryTime bounds how long it may take from the end of a fault to the first committed
	// row of a message that was sent after it.
	recoveryTime = 2 * time.Minute
	// settleTime bounds how long the mesh may take, after the last fault, to bring everything
	// to where it belongs.
	settleTime = 3 * time.Minute
)

// hold waits, or until ctx ends.
func hold(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// within polls until check is true.
func within(ctx context.Context, limit time.Duration, what string, check func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !check(ctx) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// scan calls each for all messages of a stream, as of now.
func scan(ctx context.Context, js jetstream.JetStream, stream string, each func(m jetstream.Msg, sequence uint64) error) error {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream, err)
	}
	last := s.CachedInfo().State.LastSeq
	if s.CachedInfo().State.Msgs == 0 {
		return nil
	}
	consumer, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{InactiveThreshold: 10 * time.Second})
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream, err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("reading stream %s: %w", stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("reading stream %s: %w", stream, err)
		}
		if err := each(m, meta.Sequence.Stream); err != nil {
			return err
		}
		if meta.Sequence.Stream >= last {
			return nil
		}
	}
}
