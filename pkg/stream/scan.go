package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	scanMessages = 10_000
	scanBytes    = 16 << 20
	// silence is how long a stream may send nothing before the consumer is asked
	// whether there is anything left.
	silence = 5 * time.Second
	// maxSilences is how often in a row it may say that there is, and send nothing.
	maxSilences = 4
	// scanLifetime is when the server forgets the consumer of a Scan whose process
	// was killed.
	scanLifetime = 5 * time.Minute
)

// Scan is one reading of what a stream holds, in its order, that leaves it as it
// is. Its user must be allowed to create consumers on the stream.
type Scan struct {
	Stream      string
	Subjects    []string  // filters; none: all
	Since       time.Time // when the first was stored; zero: from the beginning
	First       uint64    // sequence, in place of Since
	Last        uint64    // sequence; 0: what is there now
	HeadersOnly bool
	// Begin, if set, is called with the number of messages, before the first of them.
	// With Last it is too many.
	Begin func(messages uint64)
	// Progress, if set, is called for each thousand messages that were read.
	Progress func(messages uint64)
}

// Message is one message of a Scan. Subject, Header and Data are the receiver's only
// until the next.
type Message struct {
	Subject  string
	Header   nats.Header
	Data     []byte
	Sequence uint64
	Time     time.Time // when the stream stored it
}

// MessageOf returns a message that was read by itself. Its parts are those of m.
func MessageOf(m *jetstream.RawStreamMsg) *Message {
	return &Message{Subject: m.Subject, Header: m.Header, Data: m.Data, Sequence: m.Sequence, Time: m.Time}
}

// ErrStop ends a Scan early, without an error.
var ErrStop = errors.New("stop")

// Read calls visit for every message of the scan. A stream that does not exist is
// empty.
func (s Scan) Read(ctx context.Context, js jetstream.JetStream, visit func(*Message) error) error {
	if s.Last == 0 {
		found, err := Find(ctx, js, s.Stream)
		if err != nil || found == nil {
			return err
		}
		s.Last = found.State.LastSeq
	}
	consumer, err := js.OrderedConsumer(ctx, s.Stream, s.config())
	if err != nil {
		return fmt.Errorf("creating consumer on %s: %w", s.Stream, err)
	}
	defer func() { // it would expire by itself
		forget, cancel := context.WithTimeout(context.WithoutCancel(ctx), silence)
		defer cancel()
		_ = js.DeleteConsumer(forget, s.Stream, consumer.CachedInfo().Name)
	}()
	waiting := consumer.CachedInfo().NumPending
	if waiting == 0 {
		return nil
	}
	if s.Begin != nil {
		s.Begin(waiting)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(scanMessages, scanBytes))
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.Stream, err)
	}
	err = s.iterate(ctx, consumer, messages, visit)
	messages.Stop()
	if errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

func (s Scan) config() jetstream.OrderedConsumerConfig {
	config := jetstream.OrderedConsumerConfig{FilterSubjects: s.Subjects, HeadersOnly: s.HeadersOnly, InactiveThreshold: scanLifetime}
	switch {
	case s.First > 0:
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, s.First
	case !s.Since.IsZero():
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &s.Since
	}
	return config
}

func (s Scan) iterate(ctx context.Context, consumer jetstream.Consumer, messages jetstream.MessagesContext, visit func(*Message) error) error {
	defer context.AfterFunc(ctx, messages.Stop)()
	var m Message
	silences := 0
	for n := uint64(1); ; n++ {
		next, err := messages.Next(jetstream.NextMaxWait(silence))
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("reading %s: %w", s.Stream, ctx.Err())
		case errors.Is(err, nats.ErrTimeout):
			info, err := consumer.Info(ctx)
			if err != nil {
				continue
			}
			if info.NumPending == 0 {
				return nil // the rest was removed meanwhile
			}
			if silences++; silences == maxSilences {
				return fmt.Errorf("reading %s: nothing comes after message %d, but %d messages should: its files may be damaged: docs/runbooks/StreamDamaged.md", s.Stream, m.Sequence, info.NumPending)
			}
			continue
		case err != nil:
			return fmt.Errorf("reading %s: %w", s.Stream, err)
		}
		silences = 0
		meta, err := next.Metadata()
		if err != nil {
			return fmt.Errorf("reading %s: %w", s.Stream, err)
		}
		if meta.Sequence.Stream > s.Last {
			return nil
		}
		m = Message{Subject: next.Subject(), Header: next.Headers(), Data: next.Data(), Sequence: meta.Sequence.Stream, Time: meta.Timestamp}
		if err := visit(&m); err != nil {
			return err
		}
		last := meta.NumPending == 0 || m.Sequence == s.Last
		if s.Progress != nil && (n%1024 == 0 || last) {
			s.Progress((n-1)%1024 + 1)
		}
		if last {
			return nil
		}
	}
}
