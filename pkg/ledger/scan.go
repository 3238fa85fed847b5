package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	prefetchMessages = 10_000
	prefetchBytes    = 16 << 20
	// silence is how long a stream may send nothing before the consumer is asked
	// whether there is anything left.
	silence = 5 * time.Second
	// consumerLifetime is when the server forgets the consumer of an audit that
	// was killed.
	consumerLifetime = 5 * time.Minute
)

// scan is one reading of a stream.
type scan struct {
	stream      string
	subjects    []string
	since       time.Time // zero: from the beginning
	last        uint64    // sequence; 0: what is there now
	headersOnly bool
}

// message is one message of a scan. Subject and data are the receiver's only
// until the next.
type message struct {
	subject  string
	header   nats.Header
	data     []byte
	sequence uint64
	time     time.Time // when the stream stored it
}

// errStop ends a scan early, without an error.
var errStop = errors.New("stop")

// read calls visit for every message of the scan, in order. A stream that does
// not exist is empty.
func (a *audit) read(ctx context.Context, s scan, visit func(*message) error) error {
	if s.last == 0 {
		found, err := a.js.Stream(ctx, s.stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", s.stream, err)
		}
		s.last = found.CachedInfo().State.LastSeq
	}
	config := jetstream.OrderedConsumerConfig{
		FilterSubjects: s.subjects, HeadersOnly: s.headersOnly, InactiveThreshold: consumerLifetime,
	}
	if !s.since.IsZero() {
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &s.since
	}
	consumer, err := a.js.OrderedConsumer(ctx, s.stream, config)
	if err != nil {
		return fmt.Errorf("creating consumer on %s: %w", s.stream, err)
	}
	defer func() { // it would expire by itself
		forget, cancel := context.WithTimeout(context.WithoutCancel(ctx), silence)
		defer cancel()
		_ = a.js.DeleteConsumer(forget, s.stream, consumer.CachedInfo().Name)
	}()
	waiting := consumer.CachedInfo().NumPending
	if waiting == 0 {
		return nil
	}
	a.total = a.done + waiting
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(prefetchMessages, prefetchBytes))
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.stream, err)
	}
	err = a.iterate(ctx, s, consumer, messages, visit)
	messages.Stop()
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func (a *audit) iterate(ctx context.Context, s scan, consumer jetstream.Consumer, messages jetstream.MessagesContext, visit func(*message) error) error {
	defer context.AfterFunc(ctx, messages.Stop)()
	var m message
	for n := uint64(1); ; n++ {
		next, err := messages.Next(jetstream.NextMaxWait(silence))
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("reading %s: %w", s.stream, ctx.Err())
		case errors.Is(err, nats.ErrTimeout):
			if info, err := consumer.Info(ctx); err == nil && info.NumPending == 0 {
				return nil // the rest was removed meanwhile
			}
			continue
		case err != nil:
			return fmt.Errorf("reading %s: %w", s.stream, err)
		}
		meta, err := next.Metadata()
		if err != nil {
			return fmt.Errorf("reading %s: %w", s.stream, err)
		}
		if meta.Sequence.Stream > s.last {
			return nil
		}
		m = message{subject: next.Subject(), header: next.Headers(), data: next.Data(), sequence: meta.Sequence.Stream, time: meta.Timestamp}
		if err := visit(&m); err != nil {
			return err
		}
		last := meta.NumPending == 0 || m.sequence == s.last
		if n%1024 == 0 || last {
			a.progress((n-1)%1024 + 1)
		}
		if last {
			return nil
		}
	}
}

// subjects answers the filter for the MAC that is audited, with its place in the
// pattern, or none for all.
func (a *audit) subjects(before, after string) []string {
	if a.options.MAC == "" {
		return nil
	}
	return []string{before + string(a.options.MAC) + after}
}
