package simulator

import (
	"sync"
	"sync/atomic"
	"time"
)

// gateTimeout is how long a fleet waits for its last controller.
const gateTimeout = 30 * time.Second

// gate makes a fleet at full speed start together: else the first controllers
// would have sent everything before the last are connected. It opens when all
// have arrived, or after gateTimeout.
type gate struct {
	opened chan struct{} // closed when open
	since  atomic.Pointer[time.Time]
	away   atomic.Int64 // controllers that have not arrived
	once   sync.Once
}

func newGate(controllers int) *gate {
	g := &gate{opened: make(chan struct{})}
	g.away.Store(int64(controllers))
	return g
}

// arrive is called once for each controller.
func (g *gate) arrive() {
	if g.away.Add(-1) == 0 {
		g.open()
	}
}

func (g *gate) open() {
	g.once.Do(func() {
		now := time.Now()
		g.since.Store(&now)
		close(g.opened)
	})
}

func (g *gate) isOpen() bool {
	select {
	case <-g.opened:
		return true
	default:
		return false
	}
}

// age is how long the gate has been open.
func (g *gate) age() time.Duration {
	since := g.since.Load()
	if since == nil {
		return 0
	}
	return time.Since(*since)
}
