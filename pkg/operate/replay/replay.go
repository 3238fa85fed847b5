// Package replay decodes messages again: those of dead letters, when the cause is fixed,
// and those of an interval of RAW, when the metadata were wrong. It compares the results
// with the tables, and puts what differs on DECODED, where the writer reads it. It writes
// no rows itself.
//
// Everything may be repeated: the place in RAW identifies a message, and what the tables
// already have is not put on DECODED again.
package replay

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// MetadataDecoder works with the metadata of now.
type MetadataDecoder interface {
	// Decode decodes a message of RAW; id is its place.
	Decode(ctx context.Context, raw *stream.Message, id event.ID) (DecodedMessage, error)
	// Frame returns the Modbus frame of a message, or nil where it has none.
	Frame(t topic.Topic, body []byte) []byte
	// Points returns the data points of the sensor that a message is of.
	Points(ctx context.Context, t topic.Topic) ([]MetadataPoint, error)
}

// DecodedMessage is what a message decodes to.
type DecodedMessage struct {
	Decoded *event.Decoded // nil: nothing
	Subject string         // on DECODED
	Letters []deadletter.Letter
}

// MetadataPoint is a data point of a sensor, as the metadata have it now.
type MetadataPoint struct {
	ID             int32
	Label, Unit    string
	Offset, Length int    // of bytes in the frame
	Problem        string // why it cannot be used
}

// message is the result as DECODED takes it. With replace its values take the place
// of those that the tables have.
func (r *DecodedMessage) message(replace bool) *nats.Msg {
	m := &nats.Msg{Subject: r.Subject, Header: nats.Header{}, Data: r.Decoded.AppendJSON(nil)}
	if replace {
		m.Header[event.HeaderReplace] = []string{"1"}
	}
	return m
}

// Replayer is where messages are read and put.
type Replayer struct {
	Streams *stream.Client // an operator's, for what changes streams
	Decoder MetadataDecoder
	Tables  *Tables
	// Log gets a warning while this waits for the writer.
	Log *slog.Logger

	// put and remove do what changes streams, in place of an operator: see ReplayOne.
	put    func(ctx context.Context, all []*attempt, replace bool) (last uint64, err error)
	remove func(ctx context.Context, letters []deadletter.Stored) error
}

// incarnation is RAW's, see event.PlaceID.
func (m *Replayer) incarnation(ctx context.Context) (uint64, jetstream.Stream, error) {
	raw, err := m.Streams.JetStream().Stream(ctx, stream.Raw)
	if err != nil {
		return 0, nil, fmt.Errorf("stream %s: %w", stream.Raw, err)
	}
	return stream.Incarnation(raw.CachedInfo()), raw, nil
}

const (
	// look is how often the writer's place is looked at.
	look = 100 * time.Millisecond
	// patience is how long nothing is said of a writer that keeps this waiting.
	patience = 5 * time.Second
)

// store puts messages on DECODED and returns the last of their sequences, or a later
// one.
func (m *Replayer) store(ctx context.Context, messages []*nats.Msg) (uint64, error) {
	if _, err := m.Streams.Store(ctx, stream.Decoded, messages); err != nil {
		return 0, err
	}
	s, err := m.Streams.JetStream().Stream(ctx, stream.Decoded)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", stream.Decoded, err)
	}
	return s.CachedInfo().State.LastSeq, nil
}

// awaitWriter waits until the writer has acknowledged everything up to a sequence of
// DECODED, or all but so many messages.
func (m *Replayer) awaitWriter(ctx context.Context, sequence, behind uint64) error {
	say := time.Now().Add(patience)
	for {
		consumer, err := m.Streams.JetStream().Consumer(ctx, stream.Decoded, stream.StageWriter)
		if err != nil {
			return fmt.Errorf("waiting for the writer: %w", err)
		}
		info := consumer.CachedInfo()
		if info.AckFloor.Stream >= sequence || behind > 0 && info.NumPending+uint64(info.NumAckPending) <= behind { //nolint:gosec // not negative
			return nil
		}
		if time.Now().After(say) {
			m.Log.Warn("waiting for the writer", "pending", info.NumPending, "in_flight", info.NumAckPending)
			say = time.Now().Add(time.Minute)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the writer: %w", ctx.Err())
		case <-time.After(look):
		}
	}
}
