package stream_test

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// forgotten is longer than nats-server 2.15.2 remembers the subjects of a block (SubjectStateExpire): after
// that it reads a block before it removes it.
const forgotten = 150 * time.Second

// BenchmarkPurge removes 384 MiB of 512 from RAW in steps, as the keeper does but without its pauses, while batches of 100 messages
// are stored every 20 ms. It reports the longest that such a batch took, the time of all steps, and the
// process's peak memory meanwhile. Run it with -benchtime 1x: one step takes three minutes.
func BenchmarkPurge(b *testing.B) {
	for _, step := range []int{8, 16, 64, 384} {
		b.Run(fmt.Sprintf("%d MiB at once", step), func(b *testing.B) {
			for range b.N {
				purge(b, step<<20)
			}
		})
	}
}

func purge(b *testing.B, step int) {
	b.Helper()
	const all, removed = 512 << 20, 384 << 20
	b.StopTimer()
	client := streamtest.Connect(b, natsservertest.Start(b, natsservertest.Config(b)), natsserver.Operator)
	_, err := client.SetUp(b.Context(), stream.Sizes{RawBytes: 2 * all}, false)
	require.NoError(b, err)
	h := hop{payload: 120, headers: true}
	messages := h.messages(stream.MaxBatch)
	state := func() jetstream.StreamState {
		info, err := client.Info(b.Context(), stream.Raw)
		require.NoError(b, err)
		return info.State
	}
	for state().Bytes < all {
		_, err := client.Store(b.Context(), stream.Raw, messages)
		require.NoError(b, err)
	}
	mean := state().Bytes / state().Msgs
	time.Sleep(forgotten)
	ctx, stop := context.WithCancel(b.Context())
	longest := make(chan time.Duration)
	go func() {
		var most time.Duration
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := client.Store(b.Context(), stream.Raw, clone(messages[:100])); err != nil {
				b.Error(err)
				break
			}
			most = max(most, time.Since(began))
			time.Sleep(20 * time.Millisecond)
		}
		longest <- most
	}()
	time.Sleep(time.Second)
	raw, err := client.JetStream().Stream(b.Context(), stream.Raw)
	require.NoError(b, err)
	debug.FreeOSMemory()
	peak(b)
	b.StartTimer()
	began := time.Now()
	for to := 0; to < removed; {
		to += step
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		err := raw.Purge(ctx, jetstream.WithPurgeSequence(uint64(to)/mean))
		cancel()
		require.NoError(b, err)
	}
	took := time.Since(began)
	b.StopTimer()
	stop()
	b.ReportMetric(float64((<-longest).Milliseconds()), "longest-ms")
	b.ReportMetric(took.Seconds(), "all-s")
	b.ReportMetric(float64(peak(b))/(1<<20), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// peak returns the most memory that this process has used since the last call, in bytes.
func peak(b *testing.B) int64 {
	b.Helper()
	self, err := procfs.Self()
	require.NoError(b, err)
	status, err := self.NewStatus()
	require.NoError(b, err)
	require.NoError(b, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600)) // the peak is what is used now
	return int64(status.VmHWM)
}

// clone returns messages that may be stored again.
func clone(messages []*nats.Msg) []*nats.Msg {
	all := make([]*nats.Msg, len(messages))
	for i, m := range messages {
		all[i] = &nats.Msg{Subject: m.Subject, Header: nats.Header{}, Data: m.Data}
	}
	return all
}
