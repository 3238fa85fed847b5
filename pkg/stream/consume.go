package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrConsumerGone is the error of a service whose channel from Consume was closed
// although nobody stopped the service: the consumer or its stream was deleted. The
// service waits for both when it is started again.
var ErrConsumerGone = errors.New("the consumer was deleted")

// MinPrefetchBytes is the smallest byte limit of a Consume: the server's max_payload
// and room for headers. With less, one large message would stop the flow for good.
const MinPrefetchBytes = 4 << 20

const (
	// handedOver is the capacity of Consume's channel. Other messages wait in the NATS
	// client, which limits their bytes.
	handedOver = 16
	// defaultPullWait is how long the server keeps a pull request that it cannot fill.
	// Every request is awaited to its end: the server does not put back a message that
	// was on its way to another account when the subscription there ended, and that
	// message would wait for its ack_wait.
	defaultPullWait = 500 * time.Millisecond
)

// Consume delivers the consumer's messages on the returned channel. It closes the
// channel after the last message: when ctx ends, release is called or the consumer is
// deleted. The caller must call release when it stops reading; release gives unread
// messages back and returns when none is in flight.
//
// At most prefetch messages are in flight, and at most maxBytes, but never less than
// MinPrefetchBytes. A caller that does not read stops the flow. A message that is not
// acknowledged is delivered again after the consumer's ack_wait. Of several callers of a consumer
// with a priority group, whose policy is to pin one, one receives messages at a time. A message whose subject
// the stream's file does not declare is refused: only an account that owns that subject
// can have stored it.
func (c *Client) Consume(ctx context.Context, consumer jetstream.Consumer, prefetch, maxBytes int) (messages <-chan jetstream.Msg, release func(), err error) {
	return c.consume(ctx, consumer, prefetch, maxBytes, false)
}

// ConsumeRewinding is Consume after a Rewind, and again after each lost connection and, in a
// cluster, each lost delivery: messages that were in flight come at once, and before newer ones.
// It is for a caller that recognises a message that it has received before.
func (c *Client) ConsumeRewinding(ctx context.Context, consumer jetstream.Consumer, prefetch, maxBytes int) (messages <-chan jetstream.Msg, release func(), err error) {
	if err := c.Rewind(ctx, consumer); err != nil {
		return nil, nil, fmt.Errorf("consuming: %w", err)
	}
	return c.consume(ctx, consumer, prefetch, maxBytes, true)
}

func (c *Client) consume(ctx context.Context, consumer jetstream.Consumer, prefetch, maxBytes int, rewind bool) (<-chan jetstream.Msg, func(), error) {
	prefix, err := c.subjects(consumer.CachedInfo().Stream)
	if err != nil {
		return nil, nil, fmt.Errorf("consuming: %w", err)
	}
	limits := []jetstream.FetchOpt{jetstream.FetchMaxBytes(max(maxBytes, MinPrefetchBytes)), jetstream.FetchMaxWait(c.pullWait)}
	if groups := consumer.CachedInfo().Config.PriorityGroups; len(groups) > 0 {
		limits = append(limits, jetstream.FetchPriorityGroup(groups[0]))
	}
	p := &puller{
		client: c, consumer: consumer, prefix: prefix, messages: make(chan jetstream.Msg, min(prefetch, handedOver)),
		fetch: func() (jetstream.MessageBatch, error) {
			return consumer.Fetch(prefetch, limits...)
		},
		inOrder: rewind && consumer.CachedInfo().Cluster != nil,
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
			if now := c.nc.Stats().Reconnects; rewind && (now != connection || p.gap) {
				again := c.Rewind
				if p.inOrder {
					again = c.rewindSoon
				}
				if err := again(ctx, consumer); err != nil {
					c.log.Warn("messages that were in flight when the connection was lost come after their ack_wait", "error", err)
				}
				p.gap, p.delivery, connection = false, 0, now
			}
			p.pull(ctx)
		}
	}()
	return p.messages, release, nil
}

// subjects returns the prefix of a stream's subjects, as its file declares them.
func (c *Client) subjects(streamName string) (prefix string, err error) {
	var file jetstream.StreamConfig
	if err := readJSON(c.files, streamFile(streamName), &file); err != nil {
		return "", err
	}
	if len(file.Subjects) != 1 {
		return "", fmt.Errorf("stream %s declares %d subjects in %s; it must declare 1", streamName, len(file.Subjects), streamFile(streamName))
	}
	return strings.TrimRight(file.Subjects[0], ">*"), nil
}

// puller is a running Consume, in one goroutine.
type puller struct {
	client   *Client
	consumer jetstream.Consumer
	prefix   string // of the subjects that are accepted
	messages chan jetstream.Msg
	fetch    func() (jetstream.MessageBatch, error)
	gone     bool // the consumer was deleted

	inOrder  bool   // a gap ends what is handed over, until a Rewind
	gap      bool   // a delivery did not arrive
	delivery uint64 // number of the last one; 0: not known
}

// follows reports whether a message is the one that the server delivered after the last.
// Deliveries are lost with the consumer's leader, also while our connection lasts.
func (p *puller) follows(m jetstream.Msg) bool {
	if !p.inOrder {
		return true
	}
	meta, err := m.Metadata()
	if err != nil {
		return true
	}
	p.gap = p.gap || p.delivery != 0 && meta.Sequence.Consumer != p.delivery+1
	p.delivery = meta.Sequence.Consumer
	return !p.gap
}

// pull hands over the messages of one request.
func (p *puller) pull(ctx context.Context) {
	batch, err := p.fetch()
	if err == nil {
		for m := range batch.Messages() {
			if p.follows(m) { // else it comes again
				p.put(ctx, m)
			}
		}
		err = batch.Error()
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, jetstream.ErrPinIDMismatch) {
		return // with a mismatch somebody else is pinned now
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

// put waits until there is room. If ctx ends first, it gives the message back.
func (p *puller) put(ctx context.Context, m jetstream.Msg) {
	if !strings.HasPrefix(m.Subject(), p.prefix) {
		p.client.log.Error("refusing a message: its subject is not one of the stream's", "subject", m.Subject(), "prefix", p.prefix)
		_ = m.Term() // else it comes again
		return
	}
	select {
	case p.messages <- m:
	case <-ctx.Done():
		_ = m.Nak() // or it comes again after ack_wait
	}
}

// Acknowledge acknowledges the messages. Reconnect waits for it. A message that it
// cannot acknowledge is delivered again.
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

// Rewind has the server deliver again what a process that died had received and not
// acknowledged: at once and in stream order, instead of after ack_wait and behind newer
// messages. It does nothing while another process pulls from the consumer: that process
// still holds its messages.
func (c *Client) Rewind(ctx context.Context, consumer jetstream.Consumer) error {
	_, err := c.rewind(ctx, consumer)
	return err
}

// Bounds of rewindSoon: of its wait for a new leader of the consumer, and until the server has
// forgotten our own last pull, which looks like another process's.
const (
	rewindTimeout = 15 * time.Second
	busyTimeout   = 3 * defaultPullWait
)

// rewindSoon is Rewind as soon as it is possible.
func (c *Client) rewindSoon(ctx context.Context, consumer jetstream.Consumer) error {
	ctx, cancel := context.WithTimeout(ctx, rewindTimeout)
	defer cancel()
	for begun := time.Now(); ; {
		bounded, cancel := context.WithTimeout(ctx, moveTimeout)
		busy, err := c.rewind(bounded, consumer)
		cancel()
		if err == nil && (!busy || time.Since(begun) > busyTimeout) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectWait):
		}
	}
}

// rewind is Rewind; busy says that another process pulls, or seems to.
func (c *Client) rewind(ctx context.Context, consumer jetstream.Consumer) (busy bool, err error) {
	info, err := consumer.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("reading consumer: %w", err)
	}
	if info.NumAckPending == 0 || info.NumWaiting > 0 {
		return info.NumAckPending > 0, nil
	}
	c.log.Info("redelivering messages that were in flight", "consumer", info.Name, "messages", info.NumAckPending)
	if _, err := c.js.ResetConsumer(ctx, info.Stream, info.Name); err != nil {
		return false, fmt.Errorf("rewinding consumer %s: %w", info.Name, err)
	}
	return false, nil
}

// DrainContext returns a context that ends timeout after ctx: for work that may finish
// after a stop was requested.
func DrainContext(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	draining, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(timeout, cancel) })
	return draining, func() { stop(); cancel() }
}
