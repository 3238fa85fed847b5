// Package mqttconn makes a network connection cheap for an MQTT client that
// reads and writes packet by packet.
//
// paho.mqtt.golang reads a packet with three or more small Reads and writes
// each packet with a Write of its own: a system call each, and with TLS a
// record each. Buffer puts a reader in between that reads ahead, and a writer
// that sends what has gathered while the previous write was under way. It adds
// no delay: a lone packet leaves at once.
//
// The package knows nothing of MQTT. It opens tcp and TLS connections; proxies,
// WebSocket and Unix sockets are left out. In a buffered connection mu guards
// everything about writing; reading has no lock, since one goroutine reads.
package mqttconn

import (
	"bufio"
	"net"
	"sync"
	"time"
)

const (
	readSize   = 32 << 10        // bytes read ahead
	writeLimit = 64 << 10        // bytes gathered before Write blocks
	closeWait  = 1 * time.Second // how long Close waits for the last bytes
)

// Buffer returns a connection that reads ahead from conn and gathers writes to
// it, for example for paho's CustomOpenConnectionFn. Afterwards conn belongs to
// it. Whoever calls Buffer has to call Close, which ends its goroutine.
//
// Write copies its argument and returns; it blocks while more than 64 KiB wait.
// The error of a write that did not go through is returned by the next Write.
// Close sends what is left, for up to a second, before it closes conn. Deadlines
// are conn's: a write deadline bounds the writes that are under way, and with
// them a Write that is blocked. Read is for one goroutine at a time, all other
// methods are safe for concurrent use.
func Buffer(conn net.Conn) net.Conn {
	c := &buffered{
		Conn:    conn,
		reader:  bufio.NewReaderSize(conn, readSize),
		stopped: make(chan struct{}),
	}
	c.changed.L = &c.mu
	go c.flush()
	return c
}

type buffered struct {
	net.Conn
	reader *bufio.Reader

	mu      sync.Mutex
	changed sync.Cond // of waiting, err or closed
	waiting []byte    // gathered, not yet being written
	err     error     // of the write that failed; nothing is written after it
	closed  bool

	stopped  chan struct{} // closed when flush has returned
	once     sync.Once     // guards closeErr and the closing
	closeErr error
}

// Read reads from the buffer, and from the connection when that is empty.
func (c *buffered) Read(b []byte) (int, error) { return c.reader.Read(b) }

// Write gathers b. What is larger than the limit is taken whole once nothing
// else waits.
func (c *buffered) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && !c.closed && len(c.waiting) > 0 && len(c.waiting)+len(b) > writeLimit {
		c.changed.Wait()
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closed:
		return 0, net.ErrClosed
	}
	if len(c.waiting) == 0 && len(b) > 0 {
		defer c.changed.Broadcast()
	}
	c.waiting = append(c.waiting, b...)
	return len(b), nil
}

// flush writes what has gathered until the connection fails or is closed.
func (c *buffered) flush() {
	defer close(c.stopped)
	var spare []byte
	for {
		b := c.take(spare[:0])
		if b == nil {
			return
		}
		if _, err := c.Conn.Write(b); err != nil {
			c.fail(err)
			return
		}
		spare = b
		if cap(spare) > writeLimit {
			spare = nil
		}
	}
}

// take waits for bytes and returns them, leaving spare to gather the next, or
// nil when the connection is closed and nothing is left.
func (c *buffered) take(spare []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) == 0 {
		if c.closed {
			return nil
		}
		c.changed.Wait()
	}
	b := c.waiting
	c.waiting = spare
	c.changed.Broadcast()
	return b
}

func (c *buffered) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.waiting = nil
	c.changed.Broadcast()
}

// Close sends what is left, then closes the connection. Calls after the first
// wait for it and return the same error.
func (c *buffered) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		c.closed = true
		c.changed.Broadcast()
		c.mu.Unlock()

		c.awaitFlush()
		c.closeErr = c.Conn.Close()
		<-c.stopped
	})
	return c.closeErr
}

func (c *buffered) awaitFlush() {
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-c.stopped:
	case <-timer.C:
	}
}
