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

// wire is a way to a server that breaks as a test says. It stays in the middle of
// one bridge's connections.
type wire struct {
	listener net.Listener
	target   string
	latency  atomic.Int64 // nanoseconds, each way
	mqtt     atomic.Bool  // the wire reads packets

	noAcks    atomic.Bool // the bridge's PUBACKs vanish
	noDUP     atomic.Bool // no message of the broker has DUP
	noAnswers atomic.Bool // what the server says vanishes

	mu    sync.Mutex
	held  chan struct{} // what the bridge says waits until it is closed
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

// join carries one connection. Of MQTT it reads packets, but not those of version 5,
// which the connection for commands speaks.
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

// buffered is a connection whose first bytes have been looked at.
type buffered struct {
	net.Conn

	in *bufio.Reader
}

// Read is net.Conn's.
func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// cut is the end of the bridge's side. What the bridge has said goes on its way.
func (w *wire) cut() {
	_ = w.listener.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 0; i < len(w.conns); i += 2 {
		_ = w.conns[i].Close()
	}
}

// hold has what the bridge says from now on, and its next connection, wait for release.
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

// later is what arrives after the latency, in order.
type later struct {
	at   time.Time
	data []byte
}

func (w *wire) bytesUp(client, server net.Conn) {
	w.copyLate(client, server, w.waitHeld)
}

func (w *wire) bytesDown(server, client net.Conn) {
	w.copyLate(server, client, func() {})
}

func (w *wire) copyLate(from, to net.Conn, wait func()) {
	late := make(chan later, 1<<16)
	down := to.RemoteAddr().String() != w.target
	w.tasks.Go(func() {
		for l := range late {
			time.Sleep(time.Until(l.at))
			wait()
			if down && w.noAnswers.Load() {
				continue
			}
			if _, err := to.Write(l.data); err != nil {
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
			return // and the rest is still written
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
