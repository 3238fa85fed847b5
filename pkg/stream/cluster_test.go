package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

// F2MESH_CLUSTER_FAULTS and F2MESH_CLUSTER_RATE have TestCluster last longer.
func setInt(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	if os.Getenv(variable) == "" {
		return otherwise
	}
	n, err := strconv.Atoi(os.Getenv(variable))
	require.NoError(t, err)
	return n
}

const testControllers = 20

// load is a bridge and a decoder at work on a cluster: one stores on RAW, the other stores
// what it consumes from there on DECODED.
type load struct {
	stored  atomic.Int64 // acknowledged by RAW
	decoded atomic.Int64
	work    sync.WaitGroup
	stop    context.CancelFunc // of the bridge
	end     context.CancelFunc // of the decoder

	mu   sync.Mutex
	last map[string]time.Time
	gaps map[string]time.Duration
}

// note notes that something was stored on a stream.
func (l *load) note(stream string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last := l.last[stream]; !last.IsZero() {
		l.gaps[stream] = max(l.gaps[stream], now.Sub(last))
	}
	l.last[stream] = now
}

func startLoad(t *testing.T, cluster *natsservertest.ThreeServers, rate int) *load {
	t.Helper()
	to := Config{URL: cluster.URL, CAFile: cluster.CAFile}
	bridge, _ := newClient(t, to, "bridge", natsfiles.Files)
	decoder, _ := newClient(t, to, "decoder", natsfiles.Files)
	l := &load{last: map[string]time.Time{}, gaps: map[string]time.Duration{}}
	storing, stop := context.WithCancel(t.Context())
	consuming, end := context.WithCancel(t.Context())
	l.stop, l.end = stop, end
	raw, err := bridge.OpenAppender(storing, Raw)
	require.NoError(t, err)
	l.work.Go(func() { l.bridge(storing, t, raw, rate) })
	consumer, err := decoder.Open(consuming, Raw, "decoder")
	require.NoError(t, err)
	messages, release, err := decoder.ConsumeRewinding(consuming, consumer, 2000, 16<<20)
	require.NoError(t, err)
	l.work.Go(func() { defer release(); l.decoder(consuming, t, decoder, messages) })
	return l
}

// bridge stores numbered messages, a fiftieth of the rate at once.
func (l *load) bridge(ctx context.Context, t *testing.T, raw *Appender, rate int) {
	t.Helper()
	const every = 20 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for next := int64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var messages []*nats.Msg
		for range max(1, rate*int(every/time.Millisecond)/1000) {
			m := nats.NewMsg(fmt.Sprintf("f2.raw.tele.%012x.sensor-mode.1.sensor-1", next%testControllers))
			m.Data = strconv.AppendInt(nil, next, 10)
			messages = append(messages, m)
			next++
		}
		if _, err := raw.Append(context.WithoutCancel(ctx), messages); !assert.NoError(t, err) {
			return
		}
		l.stored.Store(next)
		l.note(Raw)
	}
}

// decoder stores each message of RAW once, as the decoder does: by its place in RAW.
func (l *load) decoder(ctx context.Context, t *testing.T, client *Client, messages <-chan jetstream.Msg) {
	t.Helper()
	done := map[uint64]bool{}
	for first := range messages {
		taken := []jetstream.Msg{first}
		for len(messages) > 0 && len(taken) < MaxBatch {
			taken = append(taken, <-messages)
		}
		var decoded []*nats.Msg
		for _, m := range taken {
			meta, err := m.Metadata()
			if err != nil {
				t.Error(err)
				return
			}
			if done[meta.Sequence.Stream] {
				continue // it came before
			}
			done[meta.Sequence.Stream] = true
			d := nats.NewMsg("f2.decoded" + m.Subject()[len("f2.raw.tele"):])
			d.Data = m.Data()
			d.Header.Set(nats.MsgIdHdr, strconv.FormatUint(meta.Sequence.Stream, 10))
			decoded = append(decoded, d)
		}
		if len(decoded) > 0 {
			if _, err := client.Store(ctx, Decoded, decoded); err != nil {
				return
			}
			l.decoded.Add(int64(len(decoded)))
			l.note(Decoded)
		}
		_ = client.Acknowledge(ctx, taken...) // else they come again
	}
}

// finish stops the bridge, waits for the decoder, and says what a stream has lost, doubled
// or put out of order, of what was stored on RAW.
func (l *load) finish(t *testing.T, operator *Client) (lost, doubled, disordered map[string]int) {
	t.Helper()
	l.stop()
	deadline := time.Now().Add(patience)
	for l.decoded.Load() < l.stored.Load() && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(moment)
	l.end()
	l.work.Wait()
	lost, doubled, disordered = map[string]int{}, map[string]int{}, map[string]int{}
	for _, name := range []string{Raw, Decoded} {
		seen, newest := map[int64]bool{}, map[int64]int64{}
		require.NoError(t, Scan{Stream: name}.Read(t.Context(), operator.js, func(m *Message) error {
			n, err := strconv.ParseInt(string(m.Data), 10, 64)
			if err != nil {
				return nil //nolint:nilerr // a placeholder
			}
			if seen[n] {
				doubled[name]++
			}
			if last, ok := newest[n%testControllers]; ok && n <= last {
				disordered[name]++
			}
			seen[n], newest[n%testControllers] = true, n
			return nil
		}))
		for n := range l.stored.Load() {
			if !seen[n] {
				lost[name]++
			}
		}
	}
	return lost, doubled, disordered
}

// leader is the server that leads a stream.
func leader(t *testing.T, c *Client, cluster *natsservertest.ThreeServers, stream string) (n *natsservertest.Node) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := c.Info(t.Context(), stream)
		if err != nil || info.Cluster == nil || info.Cluster.Leader == "" {
			return false
		}
		n = cluster.Named(info.Cluster.Leader)
		return true
	}, patience, 100*time.Millisecond)
	return n
}

// requireWhole waits until every stream is on all its servers.
func requireWhole(t *testing.T, c *Client) {
	t.Helper()
	files, err := c.streamFiles()
	require.NoError(t, err)
	for i := range files {
		require.EventuallyWithT(t, func(collect *assert.CollectT) {
			info, err := c.Info(t.Context(), files[i].Name)
			if assert.NoError(collect, err) {
				assert.Empty(collect, Behind(info), files[i].Name)
			}
		}, 2*patience, 200*time.Millisecond)
	}
}

// Streams of one server that has become three are held by all of them, with what they had.
// Then no message is lost, doubled or put out of order whichever of the servers is killed,
// paused, or loses its disk.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := natsservertest.StartCluster(t)
	operator, _ := newClient(t, Config{URL: cluster.URL, CAFile: cluster.CAFile}, "operator", natsfiles.Files)
	_, err := operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	l := startLoad(t, cluster, setInt(t, "F2MESH_CLUSTER_RATE", 100))
	require.Eventually(t, func() bool { return l.decoded.Load() > 100 }, patience, 10*time.Millisecond)
	changes, err := operator.SetUp(t.Context(), Sizes{Replicas: 3}, false)
	require.NoError(t, err)
	assert.Contains(t, changes, "stream RAW: num_replicas is 1, should be 3")
	requireWhole(t, operator)

	for fault := range setInt(t, "F2MESH_CLUSTER_FAULTS", 2) {
		node, what := leader(t, operator, cluster, []string{Raw, Decoded}[fault%2]), "killed"
		if fault%5 == 4 {
			node = cluster.Nodes[rand.IntN(len(cluster.Nodes))]
		}
		before := l.stored.Load()
		switch fault % 5 {
		case 2, 3:
			what = "paused"
			node.Pause(t, time.Duration(1+rand.IntN(12))*time.Second)
		case 4:
			what = "killed, and its disk emptied"
			node.Kill(t)
			node.Empty(t)
			node.Start(t)
		default:
			node.Kill(t)
			node.Start(t)
		}
		require.Eventually(t, func() bool { return l.stored.Load() > before }, patience, 10*time.Millisecond)
		requireWhole(t, operator)
		t.Logf("%d: %s %s; %d stored, %d decoded", fault+1, node.Cluster.Name, what, l.stored.Load(), l.decoded.Load())
	}
	lost, doubled, disordered := l.finish(t, operator)
	assert.Empty(t, lost, "lost")
	assert.Empty(t, doubled, "doubled")
	assert.Empty(t, disordered, "out of order")
	t.Logf("%d messages; longest time without a message stored: %v", l.stored.Load(), l.gaps)
}

// On one server a stream is lost with its disk, and the same count says so.
func TestClusterCountsWhatIsLost(t *testing.T) {
	t.Parallel()
	cluster := natsservertest.StartCluster(t)
	operator, _ := newClient(t, Config{URL: cluster.URL, CAFile: cluster.CAFile}, "operator", natsfiles.Files)
	_, err := operator.SetUp(t.Context(), Sizes{Replicas: 1}, false)
	require.NoError(t, err)
	l := startLoad(t, cluster, 100)
	require.Eventually(t, func() bool { return l.decoded.Load() > 100 }, patience, 10*time.Millisecond)
	l.stop()
	node := leader(t, operator, cluster, Decoded)
	node.Kill(t)
	node.Empty(t)
	node.Start(t)
	leader(t, operator, cluster, Decoded)
	lost, _, _ := l.finish(t, operator)
	assert.Positive(t, lost[Decoded])
}

// A server that is in no cluster says what to do.
func TestReplicasNeedACluster(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, "operator", natsfiles.Files)
	_, err := operator.SetUp(t.Context(), Sizes{Replicas: 3}, false)
	require.ErrorContains(t, err, "this NATS server is in no cluster; set one up (docs/scale.md), or set NATS_REPLICAS to 1")
	require.Error(t, (&Sizes{Replicas: 2}).Validate())
}
