package web

import (
	"net"
	"sync"

	"golang.org/x/net/netutil"
)

// fair is a listener that gives no source more than MaxOfSource connections.
type fair struct {
	net.Listener

	mu   sync.Mutex     // guards open
	open map[string]int // by source, never 0
}

// LimitListener is l with at most so many connections at once; more wait in the kernel. It closes
// those that a source has beyond MaxOfSource.
func LimitListener(l net.Listener, connections int) net.Listener {
	return netutil.LimitListener(&fair{Listener: l, open: map[string]int{}}, connections)
}

// Accept answers the next connection of a source that has not too many.
func (f *fair) Accept() (net.Conn, error) {
	for {
		conn, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := Network(conn.RemoteAddr().String())
		if f.take(source) {
			return &counted{Conn: conn, release: sync.OnceFunc(func() { f.release(source) })}, nil
		}
		_ = conn.Close() // it has not been answered yet
	}
}

func (f *fair) take(source string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[source] >= MaxOfSource {
		return false
	}
	f.open[source]++
	return true
}

func (f *fair) release(source string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[source]--; f.open[source] == 0 {
		delete(f.open, source)
	}
}

// counted is a connection of fair.
type counted struct {
	net.Conn
	release func()
}

// Close makes room for another connection of the source.
func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}
