package ledger

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// benchmarkMessages is 100,000, or what F2MESH_LEDGER_MESSAGES says.
func benchmarkMessages(b *testing.B) int {
	b.Helper()
	if s := os.Getenv("F2MESH_LEDGER_MESSAGES"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(b, err)
		return n
	}
	return 100_000
}

// BenchmarkAudit audits readings of three values by 100 controllers, all
// written. It reports messages a second and the most heap that was in use.
func BenchmarkAudit(b *testing.B) {
	m := newMesh(b)
	n := benchmarkMessages(b)
	m.load(n)
	var most atomic.Uint64
	var heap runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&heap)
	before := heap.HeapAlloc
	options := Options{Progress: func(done, _ uint64) {
		if done%(64*1024) == 0 {
			runtime.ReadMemStats(&heap)
			most.Store(max(most.Load(), heap.HeapAlloc))
		}
	}}
	for b.Loop() {
		r, err := Audit(b.Context(), m.js, m.db, options)
		require.NoError(b, err)
		require.True(b, r.Balanced())
		require.EqualValues(b, n, r.Total.Written)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(most.Load()-before)/(1<<20), "heap-MiB")
}

// load stores n readings on all streams and in the tables. Nothing is
// acknowledged: what has its rows is written all the same.
func (m *mesh) load(n int) {
	m.t.Helper()
	start := time.Now()
	const batch = 1000
	raw, decoded := make([]*nats.Msg, 0, batch), make([]*nats.Msg, 0, batch)
	for i := range n {
		r := newReading(i%100, i/100)
		r.d.ID = event.PlaceID(m.incarnation, uint64(i+1))
		raw, decoded = append(raw, r.msg), append(decoded, r.decoded())
		if len(raw) == batch || i == n-1 {
			m.store(stream.Raw, raw...)
			m.store(stream.Decoded, decoded...)
			raw, decoded = raw[:0], decoded[:0]
		}
	}
	_, err := m.db.Exec(m.t.Context(), `
INSERT INTO measurement (time, device_id, datapoint_id, value, received)
SELECT $1::timestamptz + make_interval(secs => i / 100), 1000 + i % 100, p, CASE p WHEN 1 THEN i / 100 + 0.52::float8 WHEN 2 THEN 50 ELSE 700 END, now()
FROM generate_series(0, $2::int - 1) AS i, generate_series(1, 3) AS p`, epoch, n)
	require.NoError(m.t, err)
	m.t.Log("loaded ", n, " messages in ", time.Since(start).Round(time.Millisecond))
}
