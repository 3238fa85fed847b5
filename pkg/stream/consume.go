package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrConsumerGone is why a service ends whose channel from Consume was closed
// before its time: somebody deleted the consumer or its stream. Whoever starts
// the service again has it make both anew.
var ErrConsumerGone = errors.New("the consumer was deleted")

// MinPrefetchBytes is the least that Consume takes for its bytes: the server's
// max_payload and room for headers, or one message could stop the flow for good.
const MinPrefetchBytes = 4 << 20

// handedOver is how many messages wait in the channel of Consume. The others wait
// where their bytes are counted.
const handedOver = 16

// Consume delivers the consumer's messages on the returned channel until ctx
// ends or the consumer is deleted, and closes it when the last has been put
// there. About prefetch messages are on their way, and at most twice maxBytes of
// them, or of MinPrefetchBytes if that is more: a reader that does not take them
// stops the flow. A message that nobody acknowledges is delivered again after the
// consumer's ack_wait.
func (c *Client) Consume(ctx context.Context, consumer jetstream.Consumer, prefetch, maxBytes int) (<-chan jetstream.Msg, error) {
	limit := jetstream.PullMaxMessagesWithBytesLimit(prefetch, max(maxBytes, MinPrefetchBytes))
	out := &outlet{messages: make(chan jetstream.Msg, min(prefetch, handedOver))}
	consuming, err := c.pull(ctx, consumer, out, limit)
	if err != nil {
		return nil, fmt.Errorf("consuming: %w", err)
	}
	moves := make(chan *move)
	c.join(moves)
	go func() {
		defer out.close()
		defer c.leave(moves)
		for consuming != nil {
			select {
			case <-ctx.Done():
				consuming.Stop()
				<-consuming.Closed()
				return
			case <-consuming.Closed():
				return
			case m := <-moves:
				consuming = c.follow(ctx, m, consuming, func() (jetstream.ConsumeContext, error) { return c.pull(ctx, consumer, out, limit) })
			}
		}
	}()
	return out.messages, nil
}

// outlet is the channel that a consumer's messages are put on. Closed() of nats.go
// comes while a handler may still be at work, so closing waits for it.
type outlet struct {
	messages chan jetstream.Msg

	mu     sync.RWMutex // held by put, guards closed
	closed bool
}

// put waits until there is room, or ctx ends. After close it does nothing: the
// message is delivered again.
func (o *outlet) put(ctx context.Context, m jetstream.Msg) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return
	}
	select {
	case o.messages <- m:
	case <-ctx.Done():
	}
}

func (o *outlet) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	close(o.messages)
}

// pull has the consumer's messages put on out.
func (c *Client) pull(ctx context.Context, consumer jetstream.Consumer, out *outlet, limit jetstream.PullConsumeOpt) (jetstream.ConsumeContext, error) {
	return consumer.Consume(func(m jetstream.Msg) { out.put(ctx, m) },
		limit,
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			if !errors.Is(err, jetstream.ErrNoHeartbeat) || ctx.Err() == nil {
				c.log.Warn("consuming", "error", err)
			}
		}))
}

// Acknowledge acknowledges the messages, and is not cut off by Reconnect. What
// it cannot acknowledge is delivered again.
func (c *Client) Acknowledge(ctx context.Context, messages ...jetstream.Msg) error {
	if err := c.gate.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("acknowledging: %w", err)
	}
	defer c.gate.Release(1)
	var failed error
	for _, m := range messages {
		if err := m.Ack(); err != nil {
			failed = fmt.Errorf("acknowledging: %w", err)
		}
	}
	return failed
}

// Rewind makes what was delivered but never acknowledged, by a process that
// died, due again at once and in stream order, instead of after ack_wait behind
// newer messages. It leaves the consumer alone while another process is pulling
// from it: that one still holds its messages.
func (c *Client) Rewind(ctx context.Context, consumer jetstream.Consumer) error {
	info, err := consumer.Info(ctx)
	if err != nil {
		return fmt.Errorf("reading consumer: %w", err)
	}
	if info.NumAckPending == 0 || info.NumWaiting > 0 {
		return nil
	}
	c.log.Info("redelivering what was in flight at the last stop", "consumer", info.Name, "messages", info.NumAckPending)
	if _, err := c.js.ResetConsumer(ctx, info.Stream, info.Name); err != nil {
		return fmt.Errorf("rewinding consumer %s: %w", info.Name, err)
	}
	return nil
}

// DrainContext returns a context that ends timeout after ctx does: for work
// that a stop should let finish.
func DrainContext(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	draining, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(timeout, cancel) })
	return draining, func() { stop(); cancel() }
}
