package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/f2mesh/f2mesh/pkg/stream/batch"
)

// MaxBatch is the most messages that the server takes in one atomic batch.
const MaxBatch = 1000

// maxBatchBytes bounds what the server holds of a batch before its commit.
const maxBatchBytes = 16 << 20

// errorCodeDuplicate is JSAtomicPublishContainsDuplicateMessageErr: a message
// of the batch is stored already, and the whole batch is refused (design 5.4).
const errorCodeDuplicate jetstream.ErrorCode = 10201

// attemptTimeout bounds one attempt to store a batch, a sync to disk included.
const attemptTimeout = 10 * time.Second

// Store returns when the stream has stored every message: it retries with
// backoff for as long as it takes, and gives up only when ctx ends. It returns
// how many the stream knew already by their Nats-Msg-Id. After a lost response a
// message without such an id may be stored twice. The messages keep their
// order; they must have a Header, which Store may change.
func (c *Client) Store(ctx context.Context, streamName string, messages []*nats.Msg) (duplicates int, err error) {
	for len(messages) > 0 {
		n := batchLength(messages)
		d, err := c.storeBatch(ctx, streamName, messages[:n])
		duplicates += d
		if err != nil {
			return duplicates, fmt.Errorf("storing on stream %s: %w", streamName, err)
		}
		messages = messages[n:]
	}
	return duplicates, nil
}

// batchLength returns how many of the messages, the first ones, to store at once. A few are stored
// one by one: see batch.Few.
func batchLength(messages []*nats.Msg) int {
	if len(messages) <= batch.Few {
		return min(1, len(messages))
	}
	size := 0
	for i, m := range messages {
		size += len(m.Data)
		if i == MaxBatch || i > 0 && size > maxBatchBytes {
			return i
		}
	}
	return len(messages)
}

func (c *Client) storeBatch(ctx context.Context, streamName string, messages []*nats.Msg) (int, error) {
	attempt := c.atomic
	if len(messages) == 1 {
		attempt = c.singly
	}
	wait := retryWait()
	for {
		var duplicates int
		err := c.gated(ctx, func() (err error) {
			duplicates, err = attempt(ctx, messages)
			var apiErr *jetstream.APIError
			if errors.As(err, &apiErr) && apiErr.ErrorCode == errorCodeDuplicate {
				attempt = c.singly
				duplicates, err = attempt(ctx, messages)
			}
			return err
		})
		if err == nil {
			return duplicates, nil
		}
		if ctx.Err() != nil {
			return duplicates, errors.Join(ctx.Err(), err)
		}
		c.waitToRetry(ctx, wait, streamName, len(messages), err)
	}
}

// waitToRetry logs why n messages were not stored, and waits before the next attempt. The
// waits begin anew once a lost connection is back.
func (c *Client) waitToRetry(ctx context.Context, wait *backoff.ExponentialBackOff, streamName string, n int, err error) {
	next := wait.NextBackOff()
	c.logRetry(streamName, n, err, next)
	if c.pause(ctx, next) {
		wait.Reset()
	}
}

// pause waits, or until ctx ends. A connection that was lost and comes back ends it, too:
// then pause returns true.
func (c *Client) pause(ctx context.Context, wait time.Duration) (connected bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if !c.nc.IsConnected() && WaitConnected(ctx, c.nc) == nil {
		return true
	}
	<-ctx.Done()
	return false
}

// gated runs an attempt that a Reconnect must not cut off.
func (c *Client) gated(ctx context.Context, attempt func() error) error {
	if err := c.gate.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.gate.Release(1)
	return attempt()
}

func retryWait() *backoff.ExponentialBackOff {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 5*time.Second
	return wait
}

func (c *Client) logRetry(streamName string, messages int, err error, next time.Duration) {
	c.log.Warn("stream did not store, will retry", "stream", streamName, "messages", messages, "error", err, "retry_in", next.Round(time.Millisecond).String())
}

// atomic stores all messages or none, with one sync for all.
func (c *Client) atomic(ctx context.Context, messages []*nats.Msg) (int, error) {
	ctx, cancel := c.whileConnected(ctx, attemptTimeout)
	defer cancel()
	_, err := jetstreamext.PublishMsgBatch(ctx, c.js, messages, jetstreamext.BatchFlowControl{})
	return 0, err
}

// singly stores one message after the other, and none after one that was not
// stored: room that a full stream gets meanwhile would be taken out of order.
// Those that succeeded before an error are duplicates at the next attempt.
func (c *Client) singly(ctx context.Context, messages []*nats.Msg) (duplicates int, err error) {
	ctx, cancel := c.whileConnected(ctx, attemptTimeout)
	defer cancel()
	for _, m := range messages {
		m.Reply = ""
		delete(m.Header, jetstreamext.BatchIDHeader)
		delete(m.Header, jetstreamext.BatchSeqHeader)
		delete(m.Header, jetstreamext.BatchCommitHeader)
		ack, err := c.js.PublishMsg(ctx, m)
		if err != nil {
			return 0, err
		}
		if ack.Duplicate {
			duplicates++
		}
	}
	return duplicates, nil
}
