package mosquitto

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// BenchmarkPuback measures how many messages a second a broker acknowledges to 50 clients
// that each wait for their PUBACK, and how many of these it has lost when it is killed then.
// F2MESH_MOSQUITTO is the program, F2MESH_MOSQUITTO_CONF holds lines of its configuration.
func BenchmarkPuback(b *testing.B) {
	program, err := find()
	if program = cmp.Or(os.Getenv("F2MESH_MOSQUITTO"), program); program == "" {
		accounttest.SkipMissing(b, err)
	}
	for _, away := range []bool{false, true} {
		b.Run(fmt.Sprintf("away=%t", away), func(b *testing.B) {
			dir := b.TempDir()
			number, err := port.Pick("127.0.0.1", 0)
			require.NoError(b, err)
			conf := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nuser root\npersistence_location %s/\nmax_inflight_messages 8000\nmax_queued_messages 0\n%s\n",
				number, dir, cmp.Or(os.Getenv("F2MESH_MOSQUITTO_CONF"), "persistence true"))
			require.NoError(b, os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600))
			r := &pubackRate{b: b, address: net.JoinHostPort("127.0.0.1", strconv.Itoa(number)), got: map[string]bool{}}
			start := func() *process.Process {
				p, err := process.Start(process.Config{Path: program, Args: []string{"-c", filepath.Join(dir, "conf")}, Log: slog.New(slog.DiscardHandler)})
				require.NoError(b, err)
				return p
			}
			broker := start()
			consumer := r.dial("bridge", "t/#")
			var reading sync.WaitGroup
			if away {
				require.NoError(b, consumer.Close())
			} else {
				reading.Go(func() { r.consume(consumer) })
			}
			acked := r.publish(broker)
			reading.Wait()
			broker = start()
			consumer = r.dial("bridge", "t/#")
			reading.Go(func() { r.consume(consumer) })
			for last := -1; last != r.count(); time.Sleep(time.Second) {
				last = r.count()
			}
			require.NoError(b, broker.Kill())
			reading.Wait()
			lost := 0
			for _, payload := range acked {
				if !r.got[payload] {
					lost++
				}
			}
			b.ReportMetric(float64(lost), "lost")
		})
	}
}

type pubackRate struct {
	b       *testing.B
	address string

	mu  sync.Mutex
	got map[string]bool
}

// dial waits until the broker serves.
func (r *pubackRate) dial(id, filter string) (conn net.Conn) {
	r.b.Helper()
	require.Eventually(r.b, func() (ok bool) {
		var err error
		conn, err = dial(r.b.Context(), r.address, client{id: id, user: "x", password: "x", keep: filter != "", filter: filter})
		return err == nil
	}, patience, pollInterval)
	return conn
}

func (r *pubackRate) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// consume acknowledges what arrives until the connection ends.
func (r *pubackRate) consume(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for {
		kind, body, err := readPacket(conn, 1<<10)
		if err != nil {
			return
		}
		if kind&0xf0 != 0x30 {
			continue
		}
		body = body[2+binary.BigEndian.Uint16(body):]
		r.mu.Lock()
		r.got[string(body[2:])] = true
		r.mu.Unlock()
		if _, err := conn.Write(packet(0x40, body[:2])); err != nil {
			return
		}
	}
}

// publish kills the broker after b.N PUBACKs. It returns what was acknowledged.
func (r *pubackRate) publish(broker *process.Process) (acked []string) {
	r.b.Helper()
	const clients = 50
	var count atomic.Int64
	var mu sync.Mutex
	var publishing sync.WaitGroup
	enough := make(chan struct{})
	var once sync.Once
	connections := make([]net.Conn, clients)
	for i := range connections {
		connections[i] = r.dial(strconv.Itoa(i), "")
	}
	r.b.ResetTimer()
	for i, conn := range connections {
		publishing.Go(func() {
			defer func() { _ = conn.Close() }()
			for n := 0; ; n++ {
				payload := fmt.Sprintf("%3d %145d", i, n)
				id := binary.BigEndian.AppendUint16(field(nil, "t/x"), uint16(n%65535+1))
				if _, err := conn.Write(packet(0x32, append(id, payload...))); err != nil {
					return
				}
				if kind, _, err := readPacket(conn, 1<<10); err != nil || kind != 0x40 {
					return
				}
				mu.Lock()
				acked = append(acked, payload)
				mu.Unlock()
				if count.Add(1) >= int64(r.b.N) {
					once.Do(func() { close(enough) })
				}
			}
		})
	}
	<-enough
	r.b.ReportMetric(float64(r.b.N)/r.b.Elapsed().Seconds(), "msg/s")
	r.b.StopTimer()
	require.NoError(r.b, broker.Kill())
	publishing.Wait()
	return acked
}
