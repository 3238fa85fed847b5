package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// sorted is a batch of arrivals by destination.
type sorted struct {
	raw     []*nats.Msg
	from    []*arrival // the arrivals of raw
	letters []deadletter.Letter
}

// sort decides on the destination of each arrival, and counts the dropped ones.
func (b *Bridge) sort(arrivals []arrival) *sorted {
	s := &sorted{raw: make([]*nats.Msg, 0, len(arrivals)), from: make([]*arrival, 0, len(arrivals))}
	for i := range arrivals {
		a := &arrivals[i]
		t, letter := b.read(a)
		a.topic = t
		if a.Retained() {
			b.window.pass(a.MessageID(), a.Duplicate())
			b.drop(t.MAC, deadletter.ReasonRetained, "a copy of a retained message is not an event", a)
			continue
		}
		place := a.Topic()
		if letter == nil {
			place = t.RawSubject()
		}
		a.digest = b.window.digest(place, a.Payload())
		v, received := b.window.take(message{
			id: a.MessageID(), dup: a.Duplicate(), digest: a.digest, at: a.at,
			letter: letter != nil, event: letter == nil && t.Component.Kind != topic.Sensor,
		})
		switch {
		case v == copied:
			b.dropCopy(t.MAC, a)
		case letter != nil:
			s.letters = append(s.letters, *letter)
		default:
			s.raw = append(s.raw, rawMessage(t, place, a, received, v))
			s.from = append(s.from, a)
		}
	}
	return s
}

func (b *Bridge) dropCopy(mac topic.MAC, a *arrival) {
	b.drop(mac, deadletter.ReasonCopy, "the broker sent the message again after a reconnect; it is already stored", a)
}

func (b *Bridge) drop(mac topic.MAC, reason, detail string, a *arrival) {
	b.copies.add(deadletter.Letter{
		Stage: stage, Reason: reason, Detail: detail, MAC: mac, Topic: a.Topic(), Received: a.at, Time: time.Now(),
	})
	if reason == deadletter.ReasonCopy {
		b.metrics.duplicates.Inc()
	} else {
		b.metrics.retained.Inc()
	}
}

// append stores messages on RAW. It removes those that RAW already has, and those that are
// too large for RAW.
func (b *Bridge) append(ctx context.Context, s *sorted) error {
	raw := b.raw.Load()
	for len(s.raw) > 0 {
		sequences, err := raw.Append(ctx, s.raw)
		n := len(sequences)
		b.count(s.raw[:n])
		for _, a := range s.from[:n] {
			b.commands.Heard(a.topic, a.Topic(), a.Payload(), a.at)
		}
		s.raw, s.from = s.raw[n:], s.from[n:]
		var overtaken *stream.OvertakenError
		switch {
		case err == nil:
		case errors.As(err, &overtaken):
			err = b.withoutStored(ctx, s, overtaken)
		case errors.Is(err, stream.ErrTooLarge):
			err = b.withoutTooLarge(ctx, s, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Bridge) count(stored []*nats.Msg) {
	b.metrics.stored.Add(float64(len(stored)))
	for _, m := range stored {
		if m.Header[event.HeaderRepeat] != nil {
			b.metrics.repeats.Inc()
		}
	}
}

// withoutStored removes the messages that another process has stored meanwhile: a killed
// bridge may have sent a batch that the server reads only now. The window learns the others
// of that batch, which the broker sends again next.
func (b *Bridge) withoutStored(ctx context.Context, s *sorted, o *stream.OvertakenError) error {
	stored := make(map[uint16]uint64)
	reach := uint64(b.cfg.Inflight) //nolint:gosec // Config.Validate: positive
	err := b.streams.Range(ctx, stream.Raw, max(o.First, o.Last-min(o.Last, reach)+1), o.Last, func(m *jetstream.RawStreamMsg) {
		if m := b.window.stored(m); m.id != 0 {
			stored[m.id] = m.digest
			b.window.learn(m)
		}
	})
	if err != nil {
		return err
	}
	raw, from := s.raw[:0], s.from[:0]
	for i, m := range s.raw {
		a := s.from[i]
		if a.Duplicate() && stored[a.MessageID()] == a.digest {
			b.dropCopy(a.topic.MAC, a)
			continue
		}
		raw, from = append(raw, m), append(from, a)
	}
	s.raw, s.from = raw, from
	return nil
}

// withoutTooLarge makes dead letters of messages that are too large for the stream or the
// server: an operator may have set a lower limit than the bridge's.
func (b *Bridge) withoutTooLarge(ctx context.Context, s *sorted, cause error) error {
	limit, err := b.streams.MaxMessage(ctx, stream.Raw)
	if err != nil {
		return err
	}
	raw, from := s.raw[:0], s.from[:0]
	for i, m := range s.raw {
		a := s.from[i]
		if size := int64(len(m.Data)) + headerSize; size > limit {
			s.letters = append(s.letters, *refusal(a.topic.MAC, "payload_too_large",
				fmt.Sprintf("%d bytes with headers; the limit of %s is %d", size, stream.Raw, limit), a))
			continue
		}
		raw, from = append(raw, m), append(from, a)
	}
	if len(raw) == len(s.raw) {
		b.log.Error("the stream refused a message as too large, but it is below the stream's limit; will retry", "stream", stream.Raw, "limit", limit, "error", cause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	s.raw, s.from = raw, from
	return nil
}

// headerSize is an upper bound of the size of a message's headers on RAW.
const headerSize = 1024
