package decoder

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const parkedPrefix = "f2.parked."

// parkedMessage returns m for PARKED, with everything that decoding needs.
func parkedMessage(m *message) *nats.Msg {
	out := &nats.Msg{
		Subject: parkedPrefix + string(m.topic.MAC),
		Header: nats.Header{
			event.HeaderSubject:  {m.subject},
			event.HeaderID:       {m.id.String()},
			event.HeaderReceived: {m.received.UTC().Format(time.RFC3339Nano)},
		},
		Data: m.body,
	}
	if m.repeat {
		out.Header[event.HeaderRepeat] = []string{"1"}
	}
	return out
}

// park stores messages on PARKED. If PARKED is full, it waits: there is no other place for
// them, and newer messages stay in RAW.
func (d *Decoder) park(ctx context.Context, messages []*nats.Msg) error {
	for len(messages) > 0 {
		n, err := d.room.fit(ctx, messages)
		if err != nil {
			return err
		}
		if _, err := d.streams.Store(ctx, stream.Parked, messages[:n]); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

// room counts the free bytes of PARKED. A reserve stays free for the messages that remove
// others from PARKED.
type room struct {
	js   jetstream.JetStream
	left int64
	full atomic.Pointer[string] // why nothing can be parked now
}

const (
	parkedReserve = 1 << 20
	// storedExtra is an upper bound of what the server counts for a message beside its parts.
	storedExtra = 128
)

// fit waits for room. It returns how many of the messages have room, at least one, and counts
// them.
func (r *room) fit(ctx context.Context, messages []*nats.Msg) (n int, err error) {
	for {
		for _, m := range messages {
			size := int64(messageSize(m) + storedExtra)
			if size > r.left {
				break
			}
			r.left -= size
			n++
		}
		if n > 0 {
			r.full.Store(nil)
			return n, nil
		}
		if err := r.look(ctx); err != nil {
			return 0, err
		}
		if r.left >= int64(messageSize(messages[0])+storedExtra) {
			continue
		}
		why := fmt.Sprintf("%s is full of messages of controllers whose metadata cannot be read, so %s is not decoded: see the log for the metadata's errors, or raise max_bytes of %s",
			stream.Parked, stream.Raw, stream.Parked)
		r.full.Store(&why)
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// look reads the free bytes from the server. It tries until ctx ends.
func (r *room) look(ctx context.Context) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, readTimeout)
		s, err := r.js.Stream(bounded, stream.Parked)
		cancel()
		if err == nil {
			info := s.CachedInfo()
			r.left = 1 << 62
			if limit := info.Config.MaxBytes; limit > 0 {
				r.left = limit - min(parkedReserve, limit/8) - int64(info.State.Bytes) //nolint:gosec // far below 2^63
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("asking for the size of %s: %w", stream.Parked, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func messageSize(m *nats.Msg) int {
	size := len(m.Subject) + len(m.Data)
	for key, values := range m.Header {
		for _, value := range values {
			size += len(key) + len(value) + len(": \r\n")
		}
	}
	return size
}

// findParked marks the controllers as waiting that have messages in PARKED at the start.
func (d *Decoder) findParked(ctx context.Context) error {
	s, err := d.streams.JetStream().Stream(ctx, stream.Parked)
	if err != nil {
		return fmt.Errorf("reading %s: %w", stream.Parked, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(parkedPrefix+"*"))
	if err != nil {
		return fmt.Errorf("reading %s: %w", stream.Parked, err)
	}
	for subject := range info.State.Subjects {
		if mac, err := topic.ParseMAC(strings.TrimPrefix(subject, parkedPrefix)); err == nil {
			d.parking.found(mac)
		}
	}
	d.metrics.waiting.Set(float64(d.parking.len()))
	return nil
}
