package bridge

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/require"
)

// wire is a proxy between one bridge and a server, with faults that a test chooses.
type wire struct {
	listener net.Listener
	target   string
	latency  atomic.Int64 // nanoseconds, each way
	mqtt     atomic.Bool  // the wire reads packets

	noAcks    atomic.Bool // the bridge's PUBACKs are dropped
	noDUP     atomic.Bool // DUP is removed from the broker's messages
	noAnswers atomic.Bool // the server's bytes are dropped

	sent atomic.Int64 // bytes that the bridge has sent, those that wait included

	mu    sync.Mutex
	held  chan struct{} // the bridge's bytes wait until it is closed
	conns []net.Conn
	tasks sync.WaitGroup
}

func newWire(tb testing.TB, target string) *wire {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	w := &wire{listener: listener, target: target}
	tb.Cleanup(func() {
		w.cut()
		w.release()
		w.tasks.Wait()
	})
	w.tasks.Go(w.accept)
	return w
}

func (w *wire) address() string { return w.listener.Addr().String() }

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.waitHeld()
		server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", w.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, client, server)
		w.mu.Unlock()
		w.tasks.Go(func() { w.join(client, server) })
	}
}

// join forwards one connection. It parses the packets of MQTT 3.1.1; the connection for
// commands uses MQTT 5.
func (w *wire) join(client, server net.Conn) {
	up, down := w.bytesUp, w.bytesDown
	if w.mqtt.Load() {
		in := bufio.NewReader(client)
		client = buffered{client, in}
		if connect, err := in.Peek(16); err == nil && !bytes.Contains(connect, []byte("MQTT\x05")) {
			up, down = w.packetsUp, w.packetsDown
		}
	}
	w.tasks.Go(func() { up(client, server) })
	w.tasks.Go(func() { down(server, client) })
}

// buffered is a connection whose first bytes were peeked.
type buffered struct {
	net.Conn

	in *bufio.Reader
}

// Read implements net.Conn.
func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// counted is a connection whose read bytes are counted.
type counted struct {
	net.Conn

	n *atomic.Int64
}

// Read implements net.Conn.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// cut closes the bridge's connections. Bytes that the bridge has sent are still forwarded.
func (w *wire) cut() {
	_ = w.listener.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 0; i < len(w.conns); i += 2 {
		_ = w.conns[i].Close()
	}
}

// hold makes the bridge's further bytes, and its next connection, wait for release.
func (w *wire) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		w.held = make(chan struct{})
	}
}

func (w *wire) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		close(w.held)
		w.held = nil
	}
}

func (w *wire) waitHeld() {
	w.mu.Lock()
	held := w.held
	w.mu.Unlock()
	if held != nil {
		<-held
	}
}

// later is bytes that are forwarded after the latency, in order.
type later struct {
	at   time.Time
	data []byte
}

func (w *wire) bytesUp(client, server net.Conn) {
	w.copyLate(counted{client, &w.sent}, server, w.waitHeld)
}

func (w *wire) bytesDown(server, client net.Conn) {
	w.copyLate(server, client, func() {})
}

func (w *wire) copyLate(from, to net.Conn, wait func()) {
	late := make(chan later, 1<<16)
	down := to.RemoteAddr().String() != w.target
	w.tasks.Go(func() {
		for l := range late {
			time.Sleep(time.Until(l.at)) // the latency of the network
			wait()
			if down && w.noAnswers.Load() {
				continue
			}
			// A bridge that is gone does not end the server's connection: what it has sent may still wait.
			if _, err := to.Write(l.data); err != nil && !down {
				_ = from.Close()
			}
		}
		_ = to.Close()
	})
	defer close(late)
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			late <- later{time.Now().Add(time.Duration(w.latency.Load())), buf[:n]}
		}
		if err != nil {
			return // the rest is still forwarded
		}
	}
}

func (w *wire) packetsUp(client, server net.Conn) {
	defer func() { _ = server.Close() }()
	in := bufio.NewReader(client)
	for {
		p, err := packets.ReadPacket(in)
		if err != nil {
			return
		}
		if _, ok := p.(*packets.PubackPacket); ok && w.noAcks.Load() {
			continue
		}
		if p.Write(server) != nil {
			return
		}
	}
}

func (w *wire) packetsDown(server, client net.Conn) {
	defer func() { _ = client.Close() }()
	in := bufio.NewReader(server)
	for {
		p, err := packets.ReadPacket(in)
		if err != nil {
			return
		}
		if m, ok := p.(*packets.PublishPacket); ok && w.noDUP.Load() {
			m.Dup = false
		}
		if p.Write(client) != nil {
			return
		}
	}
}
