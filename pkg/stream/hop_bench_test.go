package stream_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// hop is one hop of the data path: messages are published, stored, delivered and acknowledged.
type hop struct {
	batch, payload int    // messages, bytes
	from, to       string // users
	headers        bool
	stream         func(*jetstream.StreamConfig)
	consumer       func(*jetstream.ConsumerConfig)
}

// BenchmarkHop measures a hop from the bridge over RAW to the decoder, and what one setting changes:
// the CPU time of client and server a message, and the bytes on disk. Run it with -benchtime 100000x
// -count 5 on a machine that does nothing else.
func BenchmarkHop(b *testing.B) {
	for _, variant := range []struct {
		name   string
		change func(*hop)
	}{
		{"as it is", func(*hop) {}},
		{"single messages", func(h *hop) { h.batch = 1 }},
		{"batches of 4", func(h *hop) { h.batch = 4 }},
		{"batches of 5", func(h *hop) { h.batch = 5 }},
		{"batches of 32", func(h *hop) { h.batch = 32 }},
		{"batches of 100", func(h *hop) { h.batch = 100 }},
		{"batches of 300", func(h *hop) { h.batch = 300 }},
		{"one account", func(h *hop) { h.from, h.to = natsserver.Operator, natsserver.Operator }},
		{"acknowledged by the last of a batch", func(h *hop) {
			h.consumer = func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckAllPolicy }
		}},
		{"without headers", func(h *hop) { h.headers = false }},
		{"300 bytes", func(h *hop) { h.payload = 300 }},
		{"600 bytes", func(h *hop) { h.payload = 600 }},
		{"without compression", func(h *hop) {
			h.stream = func(c *jetstream.StreamConfig) { c.Compression = jetstream.NoCompression }
		}},
		{"in memory", func(h *hop) {
			h.stream = func(c *jetstream.StreamConfig) {
				c.Storage, c.Compression, c.MaxBytes = jetstream.MemoryStorage, jetstream.NoCompression, 250<<20
			}
		}},
	} {
		h := hop{batch: stream.MaxBatch, payload: 120, from: natsserver.Bridge, to: natsserver.Decoder, headers: true}
		variant.change(&h)
		b.Run(variant.name, h.run)
	}
}

func (h hop) run(b *testing.B) {
	cfg := natsservertest.Config(b)
	server := natsservertest.Start(b, cfg)
	h.declare(b, streamtest.Connect(b, server, natsserver.Operator))
	to := streamtest.Connect(b, server, h.to)
	consumer, err := to.Open(b.Context(), stream.Raw, stream.StageDecoder)
	require.NoError(b, err)
	messages, release, err := to.Consume(b.Context(), consumer, 2*stream.MaxBatch, 8<<20)
	require.NoError(b, err)
	defer release()
	all := h.messages(b.N)
	appender := streamtest.Connect(b, server, h.from).NewAppender(stream.Raw, 0)

	before := usage(b)
	b.ResetTimer()
	done := make(chan error)
	go func() {
		var taken []jetstream.Msg
		var err error
		for n := range b.N {
			if taken = append(taken, <-messages); len(taken) < stream.MaxBatch && n+1 < b.N {
				continue
			}
			if consumer.CachedInfo().Config.AckPolicy == jetstream.AckAllPolicy {
				taken = taken[len(taken)-1:]
			}
			if err == nil {
				err = to.Acknowledge(b.Context(), taken...)
			}
			taken = nil
		}
		done <- err
	}()
	for len(all) > 0 {
		n := min(h.batch, len(all))
		_, err := appender.Append(b.Context(), all[:n])
		require.NoError(b, err)
		all = all[n:]
	}
	require.NoError(b, <-done)
	b.StopTimer()
	b.ReportMetric(float64((usage(b)-before).Nanoseconds())/1000/float64(b.N), "CPU-µs/op")
	b.ReportMetric(float64(sizeOf(b, cfg.Dir))/float64(b.N), "disk-B/op")
}

// declare makes the streams, and RAW with the hop's settings.
func (h hop) declare(b *testing.B, operator *stream.Client) {
	b.Helper()
	_, err := operator.SetUp(b.Context(), stream.Sizes{}, false)
	require.NoError(b, err)
	js := operator.JetStream()
	raw, err := stream.Find(b.Context(), js, stream.Raw)
	require.NoError(b, err)
	decoder, err := stream.FindConsumer(b.Context(), js, stream.Raw, stream.StageDecoder)
	require.NoError(b, err)
	if h.stream != nil {
		h.stream(&raw.Config)
	}
	if h.consumer != nil {
		h.consumer(&decoder.Config)
	}
	require.NoError(b, js.DeleteStream(b.Context(), stream.Raw))
	_, err = js.CreateStream(b.Context(), raw.Config)
	require.NoError(b, err)
	_, err = js.CreateConsumer(b.Context(), stream.Raw, decoder.Config)
	require.NoError(b, err)
}

// messages are n frames of 50 controllers.
func (h hop) messages(n int) []*nats.Msg {
	all := make([]*nats.Msg, n)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range all {
		header := nats.Header{}
		if h.headers {
			header[event.HeaderReceived] = []string{time.Now().Format(time.RFC3339Nano)}
			header[event.HeaderPacketID] = []string{fmt.Sprint(i%65535 + 1)}
		}
		body := `{"timestamp":"2026-07-01 12:00:00.123456","data":"`
		for len(body) < h.payload-2 {
			body += fmt.Sprintf("%02X ", random.IntN(256))
		}
		all[i] = &nats.Msg{
			Subject: fmt.Sprintf("f2.raw.tele.e4fd45f65%03x.sensor-mode.1.sensor-1", i%50),
			Header:  header, Data: []byte(strings.TrimRight(body, " ") + `"}`),
		}
	}
	return all
}

// usage is the CPU time that this process has used.
func usage(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func sizeOf(b *testing.B, dir string) (size int64) {
	b.Helper()
	require.NoError(b, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	}))
	return size
}
