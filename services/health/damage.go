package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// streamInfo returns a stream's configuration and state, or nil where there is no such
// stream. With lost the state says what the server could not read. It then lists what was
// deleted, too: much of it in a stream that keeps the last messages of each subject.
func streamInfo(ctx context.Context, js jetstream.JetStream, name string, lost bool) (*jetstream.StreamInfo, error) {
	s, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err == nil && lost {
		_, err = s.Info(ctx, jetstream.WithDeletedDetails(true))
	}
	if err != nil {
		return nil, fmt.Errorf("asking JetStream for stream %s: %w", name, err)
	}
	return s.CachedInfo(), nil
}

// lostBytes is what the server could not read of a stream's files since it started.
func lostBytes(state *jetstream.StreamState) uint64 {
	if state.Lost == nil {
		return 0
	}
	return max(state.Lost.Bytes, 1)
}

// end is where a stream ended at the last look.
type end struct {
	created time.Time
	last    uint64
	cut     string // how it lost its end, until health starts again; "": it did not
}

// damaged returns what is wrong with the files of a stream, "" if nothing is known.
func (j *judge) damaged(s *StreamFill) string {
	before := j.ends[s.Stream]
	now := end{created: s.created, last: s.last, cut: before.cut}
	if s.last < before.last && s.created.Equal(before.created) {
		now.cut = fmt.Sprintf("it ended at message %d, and now ends at %d", before.last, s.last)
	}
	j.ends[s.Stream] = now
	if now.cut == "" && s.Lost > 0 {
		return fmt.Sprintf("the server could not read %d bytes of its files", s.Lost)
	}
	return now.cut
}
