package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	pageMessages = 500
	pageBytes    = 1 << 20
)

// earlier looks on RESULT for a command with the id, and notes the last one.
func (w *wait) earlier(ctx context.Context, id string) (known bool, err error) {
	for next := uint64(1); ; {
		page, err := jetstreamext.GetBatch(ctx, w.sender.streams.JetStream(), stream.Result, pageMessages,
			jetstreamext.GetBatchSubject(outcome.Subject(w.subject)), jetstreamext.GetBatchSeq(next), jetstreamext.GetBatchMaxBytes(pageBytes))
		if err != nil {
			return false, fmt.Errorf("looking for the id on %s: %w", stream.Result, err)
		}
		last := next
		for m, err := range page {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				return known, nil
			}
			if err != nil {
				return false, fmt.Errorf("looking for the id on %s: %w", stream.Result, err)
			}
			next = m.Sequence + 1
			if r, err := outcome.Parse(m.Header, m.Data); err == nil && r.ID == id {
				w.sequence, w.last, known = r.Sequence, &r, true
				w.next = stream.Query{Next: outcome.Subject(w.subject), Sequence: next}
			}
		}
		if ctx.Err() != nil { // the iteration does not return it
			return false, ctx.Err()
		}
		if next == last {
			return known, nil
		}
	}
}
