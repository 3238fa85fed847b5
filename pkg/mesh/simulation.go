package mesh

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
)

// OtherControllers returns n controllers that the running mesh does not simulate itself: the broker
// has one session for each, and a second connection closes the first.
func OtherControllers(r *Description, n int, out io.Writer) []fleet.Controller {
	if !r.Simulating || r.Controllers == 0 {
		return fleet.Demo(n)
	}
	fmt.Fprintf(out, "the mesh simulates %d controllers itself; these are the next %d (`f2mesh up --no-simulate` leaves the first ones to you)\n", r.Controllers, n)
	return fleet.Demo(r.Controllers + n)[r.Controllers:]
}

// LockSimulation makes this process the only `f2mesh simulate` on the mesh until it exits.
func LockSimulation(s State) (*os.File, error) {
	f, err := os.OpenFile(s.Path("simulate.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the simulation's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errors.New("another `f2mesh simulate` runs on this mesh, and the two would close each other's sessions: " +
			"stop it, or start it with more --controllers")
	}
	return f, nil
}

// BridgeCount returns a function that returns how many messages the bridge has taken from
// the broker since this call. A restart of the bridge does not reset it.
func BridgeCount(nc *nats.Conn) func() int64 {
	received := func() (int64, bool) {
		m, err := nc.Request("$SRV.STATS.f2mesh-bridge", nil, time.Second)
		if err != nil {
			return 0, false
		}
		o, ok := probe.ParseStats(m.Data)
		return int64(o.Figures["f2mesh_bridge_messages_received_total"]), ok
	}
	last, _ := received()
	var taken int64
	return func() int64 {
		if n, ok := received(); ok {
			if n < last {
				last = 0
			}
			taken, last = taken+n-last, n
		}
		return taken
	}
}
