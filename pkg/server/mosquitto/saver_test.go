package mosquitto

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// TestSavedOften kills a broker three seconds after it has acknowledged a message for an absent
// bridge. The control saves at Mosquitto's own interval.
func TestSavedOften(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		autosave Autosave
		kept     int
	}{"often": {Autosave{}, 2}, "control": {ownInterval, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.cfg.Autosave = test.autosave
			b.start()
			b.setDevices([]topic.MAC{device})
			b.absentBridge()
			b.save()
			b.publish("before")
			time.Sleep(3 * time.Second)
			require.NoError(t, b.broker.Kill())
			b.start()
			b.publish("after")
			assert.Len(t, b.queued("after"), test.kept)
		})
	}
}

// TestFirstSession kills a new broker before its first save. It keeps messages for a bridge
// that was never there, if it knows the session. In the control it does not.
func TestFirstSession(t *testing.T) {
	t.Parallel()
	session := Session{User: "bridge", ClientID: "bridge", Filter: "tele/#"}
	for name, test := range map[string]struct {
		session Session
		kept    int
	}{"saved": {session, 1}, "control": {Session{}, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.cfg.Session = test.session
			b.start()
			b.setDevices([]topic.MAC{device})
			require.NoError(t, b.broker.Kill())
			b.cfg.Session = Session{} // nothing but the saved file makes the session now
			b.start()
			b.publish("first")
			client, arrived := listen(t, b.bridgeOptions(), "tele/#")
			defer client.Disconnect(100)
			b.publish("second")
			assert.Len(t, until(t, arrived, deviceTopic+"=second"), test.kept+1)
		})
	}
}

func TestOnlyListener(t *testing.T) {
	t.Parallel()
	got, err := onlyListener("a 1\nlistener 1883\nb 2\n\nlistener 8883\ncafile x\nlistener 0 /people\n", "9 127.0.0.1")
	require.NoError(t, err)
	assert.Equal(t, "a 1\nlistener 9 127.0.0.1\nb 2\n", got)
	_, err = onlyListener("a 1\n", "9")
	require.Error(t, err)
}

func TestPause(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		sessions   int64
		took, want time.Duration
	}{
		{4 << 10, 2 * time.Millisecond, shortestPause},
		{4 << 10, 100 * time.Millisecond, time.Second},
		{4 << 10, 5 * time.Second, longestPause},
		{6 << 20, 40 * time.Millisecond, 1500 * time.Millisecond},
		{1 << 30, 0, longestPause},
	} {
		s := saver{smallest: test.sessions}
		assert.Equal(t, test.want, s.pause(test.took))
	}
}

// TestSaveCost prints how long a save takes and how long the broker serves nobody during it,
// by the length of the queue: F2MESH_QUEUED is the longest.
func TestSaveCost(t *testing.T) {
	longest := 5_000
	if text := os.Getenv("F2MESH_QUEUED"); text != "" {
		var err error
		longest, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	b.absentBridge()
	s := saver{data: filepath.Join(b.cfg.Dir, dataFolder), signal: b.broker.Save}
	queued := 0
	for _, length := range []int{0, longest / 100, longest / 10, longest} {
		b.fill(length - queued)
		queued = length
		const saves = 10
		var took, halted time.Duration
		for range saves {
			stop := b.longestPing()
			d, err := s.save(t.Context())
			require.NoError(t, err)
			took, halted = took+d, halted+stop()
		}
		t.Logf("%6d messages queued: a save takes %s; the broker serves nobody for %s", length, (took / saves).Round(time.Millisecond), (halted / saves).Round(100*time.Microsecond))
	}
}

// fill queues messages of 150 bytes.
func (b *bench) fill(count int) {
	b.t.Helper()
	client := connectMQTT(b.t, b.deviceOptions(device))
	var acks sync.WaitGroup
	for i := range count {
		token := client.Publish("tele/f2-e4fd45f654be/x", 1, false, fmt.Sprintf("%150d", i))
		acks.Go(func() { token.Wait() })
	}
	acks.Wait()
	client.Disconnect(100)
}

// longestPing pings the broker until stop, which returns how long the slowest response took.
func (b *bench) longestPing() (stop func() time.Duration) {
	b.t.Helper()
	conn, err := dial(b.t.Context(), b.broker.Address(), client{user: "registrar", password: b.cfg.Users["registrar"]})
	require.NoError(b.t, err)
	done, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var slowest time.Duration
		for {
			select {
			case <-done:
				longest <- slowest
				return
			default:
			}
			slowest = max(slowest, ping(b.t, conn))
		}
	}()
	return func() time.Duration {
		close(done)
		defer func() { _ = conn.Close() }()
		return <-longest
	}
}

func ping(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	_, err := io.Copy(conn, strings.NewReader("\xc0\x00"))
	if assert.NoError(t, err) {
		_, err = io.ReadFull(conn, make([]byte, 2))
		assert.NoError(t, err)
	}
	return time.Since(began)
}
