package writer

import (
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

var cluster postgrestest.Shared

func TestMain(m *testing.M) { os.Exit(cluster.Main(m, nil)) }

// newWriter returns a writer with an open pool.
func newWriter(t *testing.T, dsn string, client *stream.Client) *Writer {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return writerOn(t, pool, client)
}

// writerOn returns a writer on a pool; streams may be nil.
func writerOn(tb testing.TB, pool *pgxpool.Pool, streams *stream.Client) *Writer {
	tb.Helper()
	cfg := Config{DSN: "set already", Batch: 1000, Timescale: false, CompressAfter: time.Hour, DrainTimeout: 10 * time.Second}
	w, err := New(cfg, secret.Login{}, streams, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(tb, err)
	w.pool = pool
	return w
}

// mesh is a writer between real streams and real tables. Tests call its steps.
type mesh struct {
	t        *testing.T
	w        *Writer
	client   *stream.Client // the operator's
	streams  *stream.Client // the writer's
	consumer jetstream.Consumer
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	ctx := t.Context()
	dsn := cluster.NewDatabase(t, "")
	operator, streams := streamtest.NewClientAs(t, natsserver.Writer)
	m := &mesh{t: t, client: operator, streams: streams}
	require.NoError(t, m.client.Ensure(ctx, stream.Decoded, stream.DeadLetter))
	var err error
	m.consumer, err = m.streams.Consumer(ctx, stream.Decoded, stage)
	require.NoError(t, err)
	m.w = newWriter(t, dsn, m.streams)
	require.NoError(t, m.w.prepareTables(ctx, m.w.pool))
	return m
}

// write stores messages on DECODED and writes them as one batch.
func (m *mesh) write(messages ...event.Decoded) {
	m.t.Helper()
	m.writeRaw(encoded(messages...)...)
}

// encoded returns messages like those of the decoder.
func encoded(messages ...event.Decoded) []*nats.Msg {
	all := make([]*nats.Msg, len(messages))
	for i := range messages {
		d := &messages[i]
		all[i] = &nats.Msg{
			Subject: "f2.decoded." + d.MAC + "." + d.Mode + ".1." + d.Component,
			Header:  nats.Header{}, Data: d.AppendJSON(nil),
		}
	}
	return all
}

// again returns messages like those of a redecoding.
func again(messages ...event.Decoded) []*nats.Msg {
	all := encoded(messages...)
	for _, m := range all {
		m.Header.Set(event.HeaderReplace, "1")
	}
	return all
}

func (m *mesh) writeRaw(messages ...*nats.Msg) {
	m.t.Helper()
	started := time.Now()
	for waiting := m.fetch(messages...); len(waiting) > 0; {
		var err error
		if waiting, err = m.w.write(m.t.Context(), waiting); len(waiting) == 0 {
			require.NoError(m.t, err)
		}
		require.Less(m.t, time.Since(started), patience, "it waits for ever: %v", err)
	}
	m.settleApart()
}

// settleApart runs turns until no message is set apart.
func (m *mesh) settleApart() {
	m.t.Helper()
	for started := time.Now(); ; {
		_, err := m.w.apart.turn(m.t.Context(), quick)
		require.NoError(m.t, err)
		_, err = m.w.apart.turn(m.t.Context(), patient)
		require.NoError(m.t, err)
		if _, messages := m.w.apart.count(); messages == 0 {
			return
		}
		require.Less(m.t, time.Since(started), patience, "messages stay apart")
	}
}

// fetch stores messages on DECODED and receives them.
func (m *mesh) fetch(messages ...*nats.Msg) []jetstream.Msg {
	m.t.Helper()
	ctx := m.t.Context()
	_, err := m.client.Store(ctx, stream.Decoded, messages)
	require.NoError(m.t, err)
	fetched, err := m.consumer.Fetch(len(messages), jetstream.FetchMaxWait(20*time.Second))
	require.NoError(m.t, err)
	var batch []jetstream.Msg
	for msg := range fetched.Messages() {
		batch = append(batch, msg)
	}
	require.NoError(m.t, fetched.Error())
	require.Len(m.t, batch, len(messages))
	return batch
}

// letters returns all messages of DEAD_LETTER, in order.
func (m *mesh) letters() []*jetstream.RawStreamMsg {
	m.t.Helper()
	s, err := m.client.JetStream().Stream(m.t.Context(), stream.DeadLetter)
	require.NoError(m.t, err)
	var all []*jetstream.RawStreamMsg
	for sequence := uint64(1); sequence <= s.CachedInfo().State.LastSeq; sequence++ {
		msg, err := s.GetMsg(m.t.Context(), sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // there were more than are kept
		}
		require.NoError(m.t, err)
		all = append(all, msg)
	}
	return all
}

// query returns one value from the tables.
func query[T any](m *mesh, sql string, args ...any) (value T) {
	m.t.Helper()
	require.NoError(m.t, m.w.pool.QueryRow(m.t.Context(), sql, args...).Scan(&value), sql)
	return value
}

// count reads a counter without a label.
func count(t *testing.T, c prometheus.Counter) int {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(c))
	families, err := reg.Gather()
	require.NoError(t, err)
	return int(families[0].GetMetric()[0].GetCounter().GetValue())
}
