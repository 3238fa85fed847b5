package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// Reads of one Range that are on their way at the same time, and how many messages
// it holds at most.
const (
	rangeReads = 64
	rangeChunk = 256
)

// Info asks the server for a stream's configuration and state.
func (c *Client) Info(ctx context.Context, streamName string) (*jetstream.StreamInfo, error) {
	s, err := c.js.Stream(ctx, streamName)
	if err != nil {
		return nil, fmt.Errorf("asking JetStream for %s: %w", streamName, err)
	}
	return s.CachedInfo(), nil
}

// Find returns a stream's configuration and state, or nil where there is no such stream.
func Find(ctx context.Context, js jetstream.JetStream, streamName string) (*jetstream.StreamInfo, error) {
	s, err := js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking JetStream for stream %s: %w", streamName, err)
	}
	return s.CachedInfo(), nil
}

// find is Find. It waits for the server, and in a cluster for the stream's leader, for as long
// as ctx lasts.
func (c *Client) find(ctx context.Context, streamName string) (info *jetstream.StreamInfo, err error) {
	err = c.untilAnswered(ctx, "stream "+streamName, func(ctx context.Context) (err error) {
		info, err = Find(ctx, c.js, streamName)
		return err
	})
	return info, err
}

// FindConsumer returns a consumer's configuration and state, or nil where there is no such
// consumer or stream.
func FindConsumer(ctx context.Context, js jetstream.JetStream, streamName, name string) (*jetstream.ConsumerInfo, error) {
	c, err := js.Consumer(ctx, streamName, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking JetStream for consumer %s of %s: %w", name, streamName, err)
	}
	return c.CachedInfo(), nil
}

// Range passes the stored messages from first to last to yield, in their order. What
// is no longer there is left out. It waits for the server for as long as ctx lasts.
// The user needs the right to get single messages of the stream, and no more.
func (c *Client) Range(ctx context.Context, streamName string, first, last uint64, yield func(*jetstream.RawStreamMsg)) error {
	for first = max(first, 1); first <= last; first += rangeChunk {
		chunk := make([]*jetstream.RawStreamMsg, min(rangeChunk, last-first+1))
		reads, ctx := errgroup.WithContext(ctx)
		reads.SetLimit(rangeReads)
		for i := range chunk {
			reads.Go(func() error {
				return c.untilAnswered(ctx, "a message of "+streamName, func(ctx context.Context) (err error) {
					chunk[i], err = c.Message(ctx, streamName, Query{Sequence: first + uint64(i)}) //nolint:gosec // not negative
					if errors.Is(err, jetstream.ErrMsgNotFound) {
						return nil
					}
					return err
				})
			})
		}
		if err := reads.Wait(); err != nil {
			return fmt.Errorf("reading %s: %w", streamName, err)
		}
		for _, m := range chunk {
			if m != nil {
				yield(m)
			}
		}
	}
	return nil
}

// LastSequence returns the sequence of the stream's last message, whether it is still
// there or not. It waits for the server for as long as ctx lasts.
func (c *Client) LastSequence(ctx context.Context, streamName string) (last uint64, err error) {
	err = c.untilAnswered(ctx, "the end of "+streamName, func(ctx context.Context) error {
		info, err := c.Info(ctx, streamName)
		if err == nil {
			last = info.State.LastSeq
		}
		return err
	})
	return last, err
}

// MaxMessage returns the size of the largest message, with its headers, that the
// stream and the server take.
func (c *Client) MaxMessage(ctx context.Context, streamName string) (limit int64, err error) {
	err = c.untilAnswered(ctx, "the limits of "+streamName, func(ctx context.Context) error {
		info, err := c.Info(ctx, streamName)
		if err != nil {
			return err
		}
		limit = c.nc.MaxPayload()
		if size := int64(info.Config.MaxMsgSize); size > 0 {
			limit = min(limit, size)
		}
		return nil
	})
	return limit, err
}
