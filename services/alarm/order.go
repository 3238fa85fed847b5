package alarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream"
)

// order keeps the messages of DECODED in their order. The consumer is pinned: of several services
// one receives messages. But what a service that died had received comes again behind newer
// messages. Rules are about what came when, so such a gap has the server deliver again from there.
type order struct {
	streams  *stream.Client
	consumer jetstream.Consumer
	next     uint64    // sequence that is expected; 0: not known
	reset    time.Time // when the server was asked to deliver again
	pin      string    // of the service, while it receives messages
}

// resetPause is how long messages from before a reset may still arrive.
const resetPause = time.Second

// verdict says what to do with a message.
type verdict int

const (
	accept   verdict = iota // it is the next one
	takeOver                // it is, but others were evaluated elsewhere
	repeated                // it was evaluated before
	early                   // others come before it
)

// look judges a message.
func (o *order) look(ctx context.Context, m jetstream.Msg) (verdict, error) {
	meta, err := m.Metadata()
	if err != nil {
		return early, err
	}
	sequence := meta.Sequence.Stream
	switch {
	case sequence == o.next:
		o.next++
		o.pin = m.Headers().Get("Nats-Pin-Id")
		return accept, nil
	case sequence < o.next:
		return repeated, nil
	case time.Since(o.reset) < resetPause:
		return early, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := o.consumer.Info(ctx)
	if err != nil {
		return early, fmt.Errorf("asking for the place in %s: %w", stream.Decoded, err)
	}
	// Messages may have been trimmed since.
	first, err := o.streams.Message(ctx, stream.Decoded, stream.Query{Next: ">", Sequence: max(info.AckFloor.Stream+1, o.next)})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return repeated, nil
	}
	if err != nil {
		return early, err
	}
	switch {
	case sequence == first.Sequence:
		o.next = sequence + 1
		o.pin = m.Headers().Get("Nats-Pin-Id")
		return takeOver, nil
	case sequence < first.Sequence:
		return repeated, nil
	}
	o.next, o.reset = first.Sequence, time.Now()
	if _, err := o.streams.JetStream().ResetConsumer(ctx, stream.Decoded, serviceName); err != nil {
		return early, fmt.Errorf("having %s delivered again: %w", stream.Decoded, err)
	}
	return early, nil
}

// acknowledged returns those of evaluated messages whose acknowledgement covers all of them: the one
// that the stream stored last, unless the consumer was made when each had to be acknowledged.
func (o *order) acknowledged(done []jetstream.Msg) []jetstream.Msg {
	if len(done) == 0 || o.consumer.CachedInfo().Config.AckPolicy != jetstream.AckAllPolicy {
		return done
	}
	return []jetstream.Msg{slices.MaxFunc(done, func(a, b jetstream.Msg) int { return cmp.Compare(sequence(a), sequence(b)) })}
}

// sequence returns that of a message whose order was judged.
func sequence(m jetstream.Msg) uint64 {
	meta, err := m.Metadata()
	if err != nil {
		return 0
	}
	return meta.Sequence.Stream
}

// standing says whether the service has evaluated all that there is, and is the one that does.
type standing struct{ caughtUp, pinned bool }

// ask asks the server.
func (o *order) ask(ctx context.Context) (s standing) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := o.consumer.Info(ctx)
	if err != nil {
		return s
	}
	pin := ""
	for _, group := range info.PriorityGroups {
		pin = group.PinnedClientID
	}
	s.caughtUp = info.NumPending == 0 && info.NumAckPending == 0 && (pin == "" || pin == o.pin)
	s.pinned = o.pin != "" && pin == o.pin
	return s
}
