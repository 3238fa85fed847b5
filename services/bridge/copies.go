package bridge

import (
	"context"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// copyPause is how long copies are collected, so that each controller has one letter in
// that time.
const copyPause = 200 * time.Millisecond

// copies counts dropped messages in dead letters, for the ledger: one letter at a time for
// each controller and reason. It runs beside the hot loop and has its own Recorder: the
// first letter of a controller takes a round trip to read its count, and after an outage a
// batch may have copies of a thousand controllers.
type copies struct {
	recorder *deadletter.Recorder
	wake     chan struct{} // holds one item while letters wait

	mu      sync.Mutex
	waiting map[copyKey]*deadletter.Letter
}

type copyKey struct {
	mac    topic.MAC
	reason string
}

func newCopies(recorder *deadletter.Recorder) *copies {
	return &copies{recorder: recorder, wake: make(chan struct{}, 1), waiting: map[copyKey]*deadletter.Letter{}}
}

func (c *copies) add(l deadletter.Letter) {
	c.mu.Lock()
	key := copyKey{l.MAC, l.Reason}
	if earlier := c.waiting[key]; earlier != nil {
		l.Times = earlier.Times
	}
	l.Times++
	c.waiting[key] = &l
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run stores the letters until last is closed, after which none is added, or ctx ends.
func (c *copies) run(ctx context.Context, last <-chan struct{}) error {
	for ended := false; !ended; {
		select {
		case <-c.wake:
			select {
			case <-time.After(copyPause):
			case <-last:
			}
		case <-last:
			ended = true
		}
		if err := c.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *copies) flush(ctx context.Context) error {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = map[copyKey]*deadletter.Letter{}
	c.mu.Unlock()
	letters := make([]deadletter.Letter, 0, len(waiting))
	for _, l := range waiting {
		letters = append(letters, *l)
	}
	return c.recorder.Record(ctx, letters)
}
