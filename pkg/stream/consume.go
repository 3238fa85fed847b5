package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

const (
	// handedOver is how many messages wait in the channel of Consume. The others wait
	// where their bytes are counted.
	handedOver = 16
	// defaultPullWait is how long the server keeps a pull that it cannot fill. Each is waited
	// for to its end: what is on its way to another account when nobody listens there
	// any more the server does not put back, and it would wait for its ack_wait.
	defaultPullWait = 500 * time.Millisecond
)

// Consume delivers the consumer's messages on the returned channel until ctx
// ends, release is called or the consumer is deleted, and closes it when the last has
// been put there. The caller has to call release when it reads no more: it gives
// back what was not read, and returns when nothing is on its way. At most prefetch
// messages are on their way, and at most maxBytes of them, or MinPrefetchBytes if that
// is more: a reader that does not take them stops the flow. A message that nobody acknowledges is delivered again after the
// consumer's ack_wait. One of a subject that is not the stream's by its file is
// refused: nobody but the subject's owner can put it there.
func (c *Client) Consume(ctx context.Context, consumer jetstream.Consumer, prefetch, maxBytes int) (messages <-chan jetstream.Msg, release func(), err error) {
	return c.consume(ctx, consumer, prefetch, maxBytes, false)
}

// ConsumeRewinding is Consume for a reader that knows what it has had already: after a
// lost connection what was on its way comes at once, and what is in its hands again.
func (c *Client) ConsumeRewinding(ctx context.Context, consumer jetstream.Consumer, prefetch, maxBytes int) (messages <-chan jetstream.Msg, release func(), err error) {
	return c.consume(ctx, consumer, prefetch, maxBytes, true)
}

func (c *Client) consume(ctx context.Context, consumer jetstream.Consumer, prefetch, maxBytes int, rewind bool) (<-chan jetstream.Msg, func(), error) {
	prefix, err := c.subjects(consumer.CachedInfo().Stream)
	if err != nil {
		return nil, nil, fmt.Errorf("consuming: %w", err)
	}
	p := &puller{
		client: c, consumer: consumer, prefix: prefix, messages: make(chan jetstream.Msg, min(prefetch, handedOver)),
		fetch: func() (jetstream.MessageBatch, error) {
			return consumer.Fetch(prefetch, jetstream.FetchMaxBytes(max(maxBytes, MinPrefetchBytes)), jetstream.FetchMaxWait(c.pullWait))
		},
	}
	ctx, cancel := context.WithCancel(ctx)
	release := func() {
		cancel()
		for m := range p.messages {
			_ = m.Nak() // or it comes again after ack_wait
		}
	}
	moves := make(chan *move)
	c.join(moves)
	go func() {
		defer close(p.messages)
		defer c.leave(moves)
		connection := c.nc.Stats().Reconnects
		for ctx.Err() == nil && !p.gone {
			select {
			case m := <-moves:
				m.await() // nothing is on its way
				connection = c.nc.Stats().Reconnects
			default:
			}
			if WaitConnected(ctx, c.nc) != nil {
				return
			}
			if now := c.nc.Stats().Reconnects; rewind && now != connection {
				if err := c.Rewind(ctx, consumer); err != nil {
					c.log.Warn("what was on its way when the connection was lost waits for its ack_wait", "error", err)
				}
				connection = now
			}
			p.pull(ctx)
		}
	}()
	return p.messages, release, nil
}

// subjects is what the subjects of a stream's messages begin with, by its file.
func (c *Client) subjects(streamName string) (prefix string, err error) {
	var file jetstream.StreamConfig
	if err := readJSON(c.files, streamFile(streamName), &file); err != nil {
		return "", err
	}
	if len(file.Subjects) != 1 {
		return "", fmt.Errorf("stream %s has %d subjects in its file, should have 1", streamName, len(file.Subjects))
	}
	return strings.TrimRight(file.Subjects[0], ">*"), nil
}

// puller is a Consume at work, in one goroutine.
type puller struct {
	client   *Client
	consumer jetstream.Consumer
	prefix   string // of the subjects that are taken
	messages chan jetstream.Msg
	fetch    func() (jetstream.MessageBatch, error)
	gone     bool // the consumer is
}

// pull hands over what one request brings.
func (p *puller) pull(ctx context.Context) {
	batch, err := p.fetch()
	if err == nil {
		for m := range batch.Messages() {
			p.put(ctx, m)
		}
		err = batch.Error()
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	if p.gone = errors.Is(err, jetstream.ErrConsumerDeleted); p.gone {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	_, missing := p.consumer.Info(bounded)
	if p.gone = errors.Is(missing, jetstream.ErrConsumerNotFound) || errors.Is(missing, jetstream.ErrStreamNotFound); p.gone {
		return
	}
	p.client.log.Warn("consuming", "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(reconnectWait):
	}
}

// put waits until there is room, or ctx ends: then the message is for somebody else.
func (p *puller) put(ctx context.Context, m jetstream.Msg) {
	if !strings.HasPrefix(m.Subject(), p.prefix) {
		p.client.log.Error("refusing a message of a subject that is not the stream's", "subject", m.Subject(), "prefix", p.prefix)
		_ = m.Term() // else it comes again
		return
	}
	select {
	case p.messages <- m:
	case <-ctx.Done():
		_ = m.Nak() // or it comes again after ack_wait
	}
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
	c.log.Info("redelivering what was in flight", "consumer", info.Name, "messages", info.NumAckPending)
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
