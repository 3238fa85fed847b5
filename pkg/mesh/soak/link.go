package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// condition is how a link behaves now. The zero value passes everything at once.
type condition struct {
	blocked bool          // nothing passes; what is under way waits
	oneWay  direction     // of which alone the other fields tell; both by default
	latency time.Duration // each way
	rate    int           // bytes a second each way; 0: as fast as they come
	stall   int           // of 1,000 chunks this many wait a retransmission's 200 ms more, as after a lost packet
}

// direction is that of what a link carries.
type direction int

const (
	both direction = iota
	toServer
	toClient
)

// rewrite changes the bytes that flow through a link, for a negative control. It returns
// the bytes that go on and those that go back to where they came from.
type rewrite func(fromClient bool, b []byte) (forward, back []byte)

// link is a TCP proxy between two parts of the mesh, whose condition can be changed.
// It sees ciphertext where the parts speak TLS. It is safe for concurrent use.
type link struct {
	name     string
	target   string
	listener net.Listener
	log      *slog.Logger

	mu      sync.Mutex
	now     condition
	changed chan struct{} // closed at the next change
	conns   map[net.Conn]bool
	rewrite func() rewrite // nil: none; called for each connection
	done    sync.WaitGroup
}

func newLink(name, target string, log *slog.Logger) (*link, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening the link %s: %w", name, err)
	}
	l := &link{name: name, target: target, listener: listener, log: log, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	l.done.Go(l.serve)
	return l, nil
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) serve() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.done.Go(func() { l.carry(conn) })
	}
}

func (l *link) carry(client net.Conn) {
	defer func() { _ = client.Close() }()
	if !l.note(client, true) {
		return
	}
	defer l.note(client, false)
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", l.target)
	if err != nil {
		return // the part is away: the client sees a connection that ends
	}
	defer func() { _ = server.Close() }()
	if !l.note(server, true) {
		return
	}
	defer l.note(server, false)
	l.mu.Lock()
	begin := l.rewrite
	l.mu.Unlock()
	var change rewrite
	if begin != nil {
		change = begin()
	}
	var ways sync.WaitGroup
	ways.Go(func() { l.copy(server, client, client, toServer, change) })
	ways.Go(func() { l.copy(client, server, server, toClient, change) })
	ways.Wait()
}

// copy carries one direction until an end closes, and then ends the other, too.
func (l *link) copy(to, from, back net.Conn, way direction, change rewrite) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buffer := make([]byte, 32<<10)
	chunks := 0
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			chunks++
			if !l.wait(n, chunks, way) {
				return
			}
			out, answer := buffer[:n], []byte(nil)
			if change != nil {
				out, answer = change(way == toServer, out)
			}
			if _, err := to.Write(out); err != nil {
				return
			}
			if len(answer) > 0 {
				if _, err := back.Write(answer); err != nil {
					return
				}
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				l.log.Debug("link", "name", l.name, "error", err)
			}
			return
		}
	}
}

// wait lets n bytes pass under the condition of now. It returns false once the link is closed.
func (l *link) wait(n, chunk int, way direction) bool {
	for {
		l.mu.Lock()
		now, changed, open := l.now, l.changed, l.conns != nil
		l.mu.Unlock()
		if !open {
			return false
		}
		if now.oneWay != both && now.oneWay != way {
			return true
		}
		if now.blocked {
			<-changed
			continue
		}
		pause := now.latency
		if now.rate > 0 {
			pause += time.Duration(n) * time.Second / time.Duration(now.rate)
		}
		if now.stall > 0 && chunk*7919%1000 < now.stall {
			pause += 200 * time.Millisecond
		}
		if pause == 0 {
			return true
		}
		select {
		case <-time.After(pause):
			return true
		case <-changed:
		}
	}
}

// set changes the condition for all connections.
func (l *link) set(c condition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = c
	close(l.changed)
	l.changed = make(chan struct{})
}

// cut resets the connections that there are. New ones are possible.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// note adds or removes a connection. It returns false once the link is closed.
func (l *link) note(conn net.Conn, open bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return false
	}
	if open {
		l.conns[conn] = true
	} else {
		delete(l.conns, conn)
	}
	return true
}

func (l *link) close() {
	_ = l.listener.Close()
	l.cut()
	l.mu.Lock()
	l.conns = nil
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	l.done.Wait()
}
