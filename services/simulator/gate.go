package simulator

import (
	"sync"
	"sync/atomic"
	"time"
)

// gateTimeout is how long a fleet waits for its last controller.
const gateTimeout = 30 * time.Second

// gate makes a fleet at full speed start together: otherwise the first controllers
// would have sent everything before the last are connected. It opens when all
// controllers have connected, or after gateTimeout.
type gate struct {
	away   atomic.Int64 // controllers that have not connected yet
	once   sync.Once
	since  time.Time     // set before opened is closed
	opened chan struct{} // closed when the gate opens
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
		g.since = time.Now()
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

// age returns how long the gate has been open.
func (g *gate) age() time.Duration {
	if !g.isOpen() {
		return 0
	}
	return time.Since(g.since)
}
