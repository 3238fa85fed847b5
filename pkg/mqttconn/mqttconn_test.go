package mqttconn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair returns both ends of a loopback connection.
func tcpPair(t testing.TB) (client, server net.Conn) { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	client, err = new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func TestConcurrentWritesArriveWhole(t *testing.T) {
	const writers, each, size = 8, 2000, 40
	client, server := tcpPair(t)
	c := Buffer(client)

	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			b := make([]byte, size)
			b[0] = byte(w)
			for i := range each {
				binary.BigEndian.PutUint32(b[1:], uint32(i))
				n, err := c.Write(b)
				require.NoError(t, err)
				require.Equal(t, size, n)
			}
		})
	}
	wg.Go(func() {
		next := make([]uint32, writers)
		b := make([]byte, size)
		for range writers * each {
			_, err := io.ReadFull(server, b)
			require.NoError(t, err)
			require.Equal(t, next[b[0]], binary.BigEndian.Uint32(b[1:]), "order of a writer")
			next[b[0]]++
		}
	})
	wg.Wait()
	require.NoError(t, c.Close())
}

func TestSmallReadsCostOneRead(t *testing.T) {
	client, server := tcpPair(t)
	counted := &countingConn{Conn: client}
	c := Buffer(counted)
	_, err := server.Write(make([]byte, 1000))
	require.NoError(t, err)
	for range 1000 {
		_, err := io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err)
	}
	require.LessOrEqual(t, counted.reads, 2)
	require.NoError(t, c.Close())
}

func TestWritesGatherWhileOneIsUnderWay(t *testing.T) {
	gate := newGatedConn()
	c := Buffer(gate)
	write(t, c, "first ")
	<-gate.entered
	for range 5 {
		write(t, c, "more ")
	}
	close(gate.gate)
	require.NoError(t, c.Close())
	require.Equal(t, []string{"first ", "more more more more more "}, gate.written())
}

func TestWriteBlocksWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := newGatedConn()
		c := Buffer(gate)
		write(t, c, "first")
		<-gate.entered
		full := bytes.Repeat([]byte("x"), writeLimit)
		write(t, c, string(full)) // gathers while the first is under way
		done := make(chan struct{})
		go func() {
			defer close(done)
			write(t, c, "late") //nolint:testifylint // what follows does not depend on it
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("a Write beyond the limit did not block")
		default:
		}
		close(gate.gate)
		<-done
		require.NoError(t, c.Close())
		require.Equal(t, []string{"first", string(full), "late"}, gate.written())
	})
}

func TestLargeWriteIsTakenWhole(t *testing.T) {
	client, server := tcpPair(t)
	c := Buffer(client)
	big := bytes.Repeat([]byte("0123456789"), 5*writeLimit/10)
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(server)
		got <- b
	}()
	write(t, c, string(big))
	write(t, c, "end")
	require.NoError(t, c.Close())
	require.True(t, bytes.Equal(append(big, "end"...), <-got))
}

func TestWriteErrorSurfacesAtTheNextWrite(t *testing.T) {
	gate := newGatedConn()
	gate.err = errors.New("broken")
	c := Buffer(gate)
	write(t, c, "lost")
	<-gate.entered
	close(gate.gate)
	require.Eventually(t, func() bool {
		_, err := c.Write([]byte("x"))
		return errors.Is(err, gate.err)
	}, time.Second, time.Millisecond)
	require.NoError(t, c.Close())
}

func TestWriteDeadlineEndsABlockedWrite(t *testing.T) {
	client, _ := tcpPair(t) // nobody reads
	c := Buffer(client)
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
	chunk := make([]byte, writeLimit)
	var err error
	for err == nil {
		_, err = c.Write(chunk)
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.Close())
}

func TestReadDeadline(t *testing.T) {
	client, _ := tcpPair(t)
	c := Buffer(client)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.Close())
}

func TestCloseSendsWhatIsLeft(t *testing.T) {
	client, server := tcpPair(t)
	c := Buffer(client)
	write(t, c, "goodbye")
	require.NoError(t, c.Close())
	b, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "goodbye", string(b))
}

func TestCloseIsBounded(t *testing.T) {
	client, _ := tcpPair(t) // nobody reads
	c := Buffer(client)
	write(t, c, string(make([]byte, 64<<20)))
	start := time.Now()
	require.NoError(t, c.Close())
	require.Less(t, time.Since(start), 3*closeWait)
}

func TestCloseEndsABlockedWriteAndRead(t *testing.T) {
	client, _ := tcpPair(t) // nobody reads
	c := Buffer(client)
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		for err == nil {
			_, err = c.Write(make([]byte, writeLimit))
		}
		require.ErrorIs(t, err, net.ErrClosed)
	})
	wg.Go(func() {
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
	})
	for range 3 {
		wg.Go(func() { require.NoError(t, c.Close()) })
	}
	wg.Wait()
	_, err := c.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	n, err := c.Write([]byte(s))
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

type countingConn struct {
	net.Conn
	reads int
}

func (c *countingConn) Read(b []byte) (int, error) {
	c.reads++
	return c.Conn.Read(b)
}

// gatedConn records writes, and holds each back until gate is closed.
type gatedConn struct {
	net.Conn
	gate    chan struct{}
	entered chan struct{}
	err     error

	mu   sync.Mutex
	list []string
}

func newGatedConn() *gatedConn {
	return &gatedConn{gate: make(chan struct{}), entered: make(chan struct{}, 100)}
}

func (c *gatedConn) Write(b []byte) (int, error) {
	c.entered <- struct{}{}
	<-c.gate
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, string(b))
	return len(b), c.err
}

func (c *gatedConn) Close() error { return nil }

func (c *gatedConn) written() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list
}
