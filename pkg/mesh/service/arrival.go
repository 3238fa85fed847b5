package service

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// arrivals holds back what comes on connections within this process.
//
// micro.AddService of nats.go 1.55.0 subscribes to STATS and then notes, without a
// lock, when the service was started: a question that comes in between reads half a
// time. In one process with the health service that asks all the time it does come.
type arrivals struct {
	held atomic.Pointer[chan struct{}] // closed at the end; nil: nothing is held
}

// longestHold ends a hold that the holder itself waits in: making a connection anew
// takes a lock of nats.go's, and reads.
const longestHold = time.Second

// hold keeps back what is read from now on until release.
func (a *arrivals) hold() (release func()) {
	done := make(chan struct{})
	a.held.Store(&done)
	return func() {
		a.held.Store(nil)
		close(done)
	}
}

func (a *arrivals) wait() {
	done := a.held.Load()
	if done == nil {
		return
	}
	select {
	case <-*done:
	case <-time.After(longestHold):
	}
}

// of has what comes from a provider's connections held.
func (a *arrivals) of(provider nats.InProcessConnProvider) nats.InProcessConnProvider {
	return heldProvider{provider, a}
}

type heldProvider struct {
	nats.InProcessConnProvider
	arrivals *arrivals
}

func (p heldProvider) InProcessConn() (net.Conn, error) {
	conn, err := p.InProcessConnProvider.InProcessConn()
	if err != nil {
		return nil, err
	}
	return heldConn{conn, p.arrivals}, nil
}

type heldConn struct {
	net.Conn
	arrivals *arrivals
}

func (c heldConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.arrivals.wait()
	return n, err
}
