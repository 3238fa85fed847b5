package simulator

import (
	"bufio"
	"fmt"
	"io"
	"sync"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// digests writes the digest of each acknowledged message, one a line. A nil one writes
// nothing. It is safe for concurrent use.
type digests struct {
	mu  sync.Mutex
	out *bufio.Writer
}

func newDigests(out io.Writer) *digests {
	if out == nil {
		return nil
	}
	return &digests{out: bufio.NewWriterSize(out, 1<<20)}
}

func (d *digests) add(name string, body []byte) {
	if d == nil {
		return
	}
	place := name
	if t, err := topic.Parse(name); err == nil {
		place = t.RawSubject()
	}
	digest := event.ID(event.Digest(place, body)).String()
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = d.out.WriteString(digest) // flush returns the error
	_ = d.out.WriteByte('\n')
}

func (d *digests) flush() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.out.Flush(); err != nil {
		return fmt.Errorf("writing the digests of acknowledged messages: %w", err)
	}
	return nil
}
