package decoder

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// TestFlood: a controller keeps on sending while it is unparked. Unparking ends nevertheless.
func TestFlood(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	one := r.fleet[0].MAC
	r.breakRow(t, one)
	d := r.start(t)
	r.send(t, one)
	r.acknowledged(t)
	over, sent := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for {
			select {
			case <-over:
				return
			default:
				if !assert.NoError(t, r.sendOne(t.Context(), one)) {
					return
				}
			}
		}
	}()
	require.Eventually(t, func() bool { return testutil.ToFloat64(d.metrics.parked) > 100 }, long, time.Millisecond)
	r.repair(t, one)
	require.Eventually(t, func() bool { return d.parking.len() == 0 }, long, time.Millisecond)
	close(over)
	<-sent
	r.settled(t, d)
	require.NoError(t, r.account(t, one))
}

// TestParkedFull: PARKED is full. Only then RAW waits, readiness returns why, and decoding
// continues when the metadata can be read.
func TestParkedFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	one, other := r.fleet[0].MAC, r.fleet[1].MAC
	r.breakRow(t, one)
	d := r.start(t)
	r.send(t, other)
	r.acknowledged(t) // PARKED is there
	s, err := r.js.Stream(t.Context(), stream.Parked)
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	cfg.MaxBytes = 64 << 10
	_, err = r.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	for range 300 {
		r.send(t, one, other)
	}
	require.Eventually(t, func() bool {
		err := d.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "PARKED is full")
	}, long, 20*time.Millisecond)
	require.Less(t, r.state(t, stream.Parked).Bytes, uint64(cfg.MaxBytes), "what removes messages has room")

	r.repair(t, one)
	r.settled(t, d)
	require.NoError(t, d.Ready(t.Context()))
	for _, mac := range []topic.MAC{one, other} {
		require.NoError(t, r.account(t, mac), mac)
	}
}

// TestPostgresAway: the database accepts connections and does not respond. The messages of a
// whole unknown fleet are parked without a wait for each controller, and decoded when the
// database is back.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	all := macs(r.fleet)
	known := all[0]
	line := newLine(t, r.dsn)
	r.dsn = line.dsn
	d := r.start(t)
	require.Eventually(t, func() bool {
		r.send(t, known)
		return d.cache.entries.Contains(known)
	}, long, 100*time.Millisecond)
	r.acknowledged(t)

	line.cut(true)
	r.send(t, all...)
	r.send(t, all...)
	r.acknowledged(t) // one by one it would be 500 s, and more than long
	assert.Equal(t, len(all)-1, d.parking.len())
	require.NoError(t, r.account(t, known), "what is known is used")
	require.Error(t, r.account(t, all[1]), "the control")

	line.cut(false)
	r.settled(t, d)
	for _, mac := range all {
		require.NoError(t, r.account(t, mac), mac)
	}
}

// line is a proxy to PostgreSQL that can be cut.
type line struct {
	dsn    string
	target string

	mu    sync.Mutex
	dead  bool
	conns []net.Conn
}

func newLine(t *testing.T, dsn string) *line {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := fmt.Sprintf(":%d", cfg.Port)
	l := &line{target: cfg.Host + port, dsn: strings.Replace(dsn, port, fmt.Sprintf(":%d", listener.Addr().(*net.TCPAddr).Port), 1)}
	require.NotEqual(t, dsn, l.dsn)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				all.Go(func() { l.carry(conn) })
			}
		}
	})
	t.Cleanup(func() { _ = listener.Close(); l.cut(true); all.Wait() })
	return l
}

// carry forwards one connection. While the line is cut, it drops the bytes.
func (l *line) carry(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	l.mu.Lock()
	dead := l.dead
	l.conns = append(l.conns, conn)
	l.mu.Unlock()
	if dead {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	server, err := net.Dial("tcp", l.target) //nolint:noctx // the test's own
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, conn)
		_ = server.Close()
	}()
	_, _ = io.Copy(conn, server)
}

// cut closes the connections.
func (l *line) cut(dead bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = dead
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

// TestRowOfAnotherType: a template that all controllers use has a data point with a fractional
// "Decimals". Only that data point is refused.
func TestRowOfAnotherType(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	send := func() {
		for _, mac := range macs(r.fleet) {
			r.publish(t, "f2.raw.tele."+string(mac)+".sensor-mode.1.sensor-1", time.Now(), frameBody(contract))
		}
	}
	values := func() (all []int) {
		for _, m := range r.all(t, stream.Decoded, "f2.decoded.>") {
			var d event.Decoded
			require.NoError(t, event.ParseDecoded(m.Subject(), m.Data(), &d))
			all = append(all, len(d.Values))
		}
		return all
	}
	d := r.start(t)
	send()
	r.acknowledged(t)
	require.Eventually(t, func() bool { return slices.Equal([]int{3, 3, 3}, values()) }, long, 100*time.Millisecond, "the control")

	r.exec(t, `ALTER TABLE "DataPoint" ALTER "Decimals" TYPE numeric`)
	r.exec(t, `UPDATE "DataPoint" SET "Decimals" = 1.5 WHERE "DataPointId" = 1`)
	r.exec(t, "SELECT pg_notify($1, '*')", channel)
	require.Eventually(t, func() bool {
		send()
		r.acknowledged(t)
		all := values() // the first of three may still have the metadata from before
		return slices.Equal([]int{2, 2, 2}, all[len(all)-3:])
	}, long, 100*time.Millisecond)
	assert.Zero(t, d.parking.len())
	letters := r.all(t, stream.DeadLetter, "f2.dead.decoder.*."+string(r.fleet[0].MAC))
	require.NotEmpty(t, letters)
	assert.Equal(t, "1", letters[0].Headers().Get(deadletter.HeaderDataPoint))
	assert.Contains(t, letters[0].Headers().Get(deadletter.HeaderDetail), `"Decimals"`)
	assert.Empty(t, letters[0].Data(), "the message is in RAW")
}
