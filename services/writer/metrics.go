package writer

import (
	"sync"
	"sync/atomic"
)

// counters are what the writer has done since it started: received counts
// messages, written and duplicates count rows. They are safe for concurrent use.
type counters struct {
	received, written, duplicates, retries atomic.Uint64
	refused                                sync.Map // reason -> *atomic.Uint64; reasons are a bounded set
}

func (c *counters) refuse(reason string) {
	n, _ := c.refused.LoadOrStore(reason, new(atomic.Uint64))
	n.(*atomic.Uint64).Add(1)
}
