package decoder

import (
	"sync"
	"sync/atomic"
)

// counters are what the decoder has done since it started. They are safe for
// concurrent use.
type counters struct {
	received, decoded, again atomic.Uint64
	refused                  sync.Map // reason -> *atomic.Uint64; reasons are a bounded set
}

func (c *counters) refuse(reason string) {
	n, _ := c.refused.LoadOrStore(reason, new(atomic.Uint64))
	n.(*atomic.Uint64).Add(1)
}
