package ledger

import (
	"context"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// readRaw opens the book: one record for each message, and the holes between them.
// RAW loses nothing but at its beginning, so that a hole is a loss.
func (a *audit) readRaw(ctx context.Context) error {
	if a.cut.first > a.cut.last {
		return nil
	}
	s := stream.Scan{
		Stream: stream.Raw, Subjects: a.subjects("f2.raw.*.", ".>"), First: a.cut.first, Last: a.cut.last, HeadersOnly: !a.claims.any(),
		Begin: func(messages uint64) {
			a.book.records = slices.Grow(a.book.records, int(min(messages, a.cut.last-a.cut.first+1))) //nolint:gosec // it fits in memory or not
		},
	}
	next := a.cut.first
	var holes []Span
	err := a.read(ctx, s, func(m *stream.Message) error {
		if m.Sequence > next {
			holes = append(holes, Span{next, m.Sequence - 1})
		}
		next = m.Sequence + 1
		device := a.book.device(token(m.Subject, 3))
		a.book.devices[device].Received++
		a.book.add(m.Sequence, device)
		a.stage(stream.StageBridge).Received++
		a.stage(stream.StageBridge).Passed++
		a.stage(stream.StageDecoder).Received++
		if a.claims.any() {
			a.claims.receive(event.Digest(m.Subject, m.Data), &a.report.Acknowledged)
		}
		return nil
	})
	if err != nil || a.options.MAC != "" {
		return err
	}
	if next <= a.cut.last {
		holes = append(holes, Span{next, a.cut.last})
	}
	return a.bookHoles(ctx, holes)
}

// bookHoles books what vanished from RAW, but for what was trimmed while it was read.
func (a *audit) bookHoles(ctx context.Context, holes []Span) error {
	if len(holes) == 0 {
		return nil
	}
	raw, err := a.raw(ctx)
	if err != nil {
		return err
	}
	state := &raw.State
	if state.Msgs > 0 && state.FirstSeq > a.cut.first {
		for len(holes) > 0 && holes[0].First < state.FirstSeq {
			a.cut.first = holes[0].Last + 1
			holes = holes[1:]
		}
	}
	for _, h := range holes {
		a.hole(h)
	}
	return nil
}

// hole books sequences that RAW gave to messages and does not hold any more.
func (a *audit) hole(h Span) {
	a.book.holes = append(a.book.holes, h)
	n := h.Last - h.First + 1
	a.report.Vanished.Messages += n
	if len(a.report.Vanished.Listed) < a.options.MaxListed {
		a.report.Vanished.Listed = append(a.report.Vanished.Listed, h)
	}
	device := &a.book.devices[a.book.device(unknown)]
	device.Received += n
	device.Missing += n
	a.stage(stream.StageBridge).Received += n
	a.stage(stream.StageBridge).Missing += n
}

// readOutcomes reads what was stored of messages of RAW. Nothing that it visits is of
// a message after rawEnd, unless it was forged.
func (a *audit) readOutcomes(ctx context.Context, s stream.Scan, visit func(*stream.Message) error) error {
	found, err := stream.Find(ctx, a.js, s.Stream)
	if err != nil || found == nil || found.State.LastSeq == 0 {
		return err
	}
	s.Last = found.State.LastSeq
	raw, err := a.raw(ctx) // after the stream of outcomes
	if err != nil {
		return err
	}
	a.rawEnd = raw.State.LastSeq
	return a.read(ctx, s, visit)
}

// readParked notes which messages wait by themselves.
func (a *audit) readParked(ctx context.Context) error {
	s := stream.Scan{Stream: stream.Parked, Subjects: a.subjects("f2.parked.", ""), HeadersOnly: true}
	return a.read(ctx, s, func(m *stream.Message) error {
		id, err := event.ParseID(value(m.Header, event.HeaderID))
		if err != nil || id.Incarnation() != a.cut.incarnation {
			return nil //nolint:nilerr // it is not a message of RAW
		}
		if r := a.book.find(id.Sequence()); r != nil {
			r.flags |= parked
		}
		return nil
	})
}

// value is Header.Get for a key that is written as it is read.
func value(h nats.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// token is the n-th token of a subject, from 0, or empty.
func token(subject string, n int) string {
	for range n {
		_, rest, ok := strings.Cut(subject, ".")
		if !ok {
			return ""
		}
		subject = rest
	}
	first, _, _ := strings.Cut(subject, ".")
	return first
}
