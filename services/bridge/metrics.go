package bridge

import (
	"sync"
	"sync/atomic"
)

// counters are what the bridge has done since it started. They are safe for
// concurrent use.
type counters struct {
	received, stored, duplicates atomic.Uint64
	commands                     atomic.Uint64
	connected                    atomic.Bool
	refused                      sync.Map // reason -> *atomic.Uint64; reasons are a bounded set
}

func (c *counters) refuse(reason string) {
	n, _ := c.refused.LoadOrStore(reason, new(atomic.Uint64))
	n.(*atomic.Uint64).Add(1)
}
