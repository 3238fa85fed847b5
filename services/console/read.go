package console

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const (
	portion      = 500
	portionBytes = 1 << 20
	readTimeout  = 10 * time.Second // of a whole page
)

// errEnough ends a reading early.
var errEnough = errors.New("enough")

// read visits the messages of a stream from a sequence on, those of a subject, with direct
// gets: the console may make no consumer.
func read(ctx context.Context, js jetstream.JetStream, streamName, subject string, first uint64, visit func(*jetstream.RawStreamMsg) error) error {
	for next := max(first, 1); ; {
		page, err := jetstreamext.GetBatch(ctx, js, streamName, portion,
			jetstreamext.GetBatchSubject(subject), jetstreamext.GetBatchSeq(next), jetstreamext.GetBatchMaxBytes(portionBytes))
		if err != nil {
			return fmt.Errorf("reading %s: %w", streamName, err)
		}
		before := next
		for m, err := range page {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("reading %s: %w", streamName, err)
			}
			next = m.Sequence + 1
			if err := visit(m); errors.Is(err, errEnough) {
				return nil
			} else if err != nil {
				return err
			}
		}
		if ctx.Err() != nil { // the iteration does not return it
			return fmt.Errorf("reading %s: %w", streamName, ctx.Err())
		}
		if next == before {
			return nil
		}
	}
}

// tail is read from so many messages before the end of the stream.
func tail(ctx context.Context, js jetstream.JetStream, streamName, subject string, count uint64, visit func(*jetstream.RawStreamMsg) error) error {
	s, err := js.Stream(ctx, streamName)
	if err != nil {
		return fmt.Errorf("reading %s: %w", streamName, err)
	}
	state := s.CachedInfo().State
	if state.Msgs == 0 {
		return nil
	}
	first := state.FirstSeq
	if state.LastSeq >= count {
		first = max(first, state.LastSeq-count+1)
	}
	return read(ctx, js, streamName, subject, first, visit)
}
