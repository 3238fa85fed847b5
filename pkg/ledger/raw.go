package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/event"
)

// readRaw opens the book: one record for each id, a duplicate for every further
// message of it.
func (a *audit) readRaw(ctx context.Context) error {
	if a.cut.rawLast == 0 {
		return nil
	}
	raw, err := a.js.Stream(ctx, rawStream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", rawStream, err)
	}
	s := scan{stream: rawStream, subjects: a.subjects("f2.raw.*.", ".>"), since: a.cut.since, last: a.cut.rawLast, headersOnly: true}
	return a.read(ctx, s, func(m *message) error {
		if m.time.After(a.cut.until) {
			return errStop
		}
		id, err := rawID(ctx, raw, m)
		if err != nil {
			return err
		}
		device := a.book.device(token(m.subject, 3))
		a.book.devices[device].Received++
		r, added := a.book.add(id)
		if !added {
			a.book.devices[device].Duplicates++
			a.stage(decoderStage).Duplicates++
		} else {
			r.raw, r.device = m.sequence, device
		}
		a.stage(bridgeStage).Received++
		a.stage(bridgeStage).Passed++
		a.stage(decoderStage).Received++
		return nil
	})
}

// rawID is the Nats-Msg-Id. A message that somebody published by hand may lack
// it; the decoder then derives one from the message, and so does this.
func rawID(ctx context.Context, raw jetstream.Stream, m *message) (event.ID, error) {
	if id, err := event.ParseID(value(m.header, jetstream.MsgIDHeader)); err == nil {
		return id, nil
	}
	whole, err := raw.GetMsg(ctx, m.sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		whole, err = &jetstream.RawStreamMsg{}, nil // removed since
	}
	if err != nil {
		return event.ID{}, fmt.Errorf("message %d: %w", m.sequence, err)
	}
	return event.NewID(m.subject, whole.Data, received(m)), nil
}

// received is when the bridge took the message, or when it was stored.
func received(m *message) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, value(m.header, event.HeaderReceived)); err == nil {
		return at
	}
	return m.time
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
