package writer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer/pgbouncertest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

const patience = time.Minute

// poolers is a database with its tables, and the two ways to connect to it.
type poolers struct{ direct, pooled *database.Pool }

// newPoolers starts a PgBouncer with the settings.
func newPoolers(tb testing.TB, settings map[string]string) poolers {
	tb.Helper()
	server := postgrestest.Start(tb)
	require.NoError(tb, pgbouncertest.Prepare(tb.Context(), server))
	cfg := pgbouncertest.Config(tb, server)
	cfg.Settings = settings
	p := pgbouncertest.Start(tb, cfg)
	direct := server.ConnString(pgbouncertest.Login, "", pgbouncertest.Database)
	credential := secrettest.Credential(pgbouncertest.Login, pgbouncertest.Password)
	open := func(pooled string) *database.Pool {
		pool, err := database.OpenPooled(tb.Context(), direct, pooled, credential)
		require.NoError(tb, err)
		tb.Cleanup(pool.Close)
		return pool
	}
	ways := poolers{open(""), open(p.ConnString(pgbouncertest.Login, "", pgbouncertest.Database))}
	w := writerOn(tb, ways.direct.Pool, nil)
	require.NoError(tb, w.prepareTables(tb.Context(), w.pool))
	return ways
}

// sample returns messages with every type of column, with nulls and extreme values.
func sample(from, n int) []event.Decoded {
	words := []string{"", "plain", `quotes ' " \ { } ,`, "ümläut €", "NULL", "two\nlines"}
	states := []string{`{}`, `{"a":null}`, `{"text":"quote \" and \\ and ü","nested":{"list":[1,2.5,true]}}`}
	var all []event.Decoded
	for i := range n {
		d := reading(from + i)
		d.Values[0].Number = []float64{0, -1.5e300, 5e-324, 25.52}[i%4]
		d.Values[1].Text = new(words[i%len(words)])
		e := occurrence(from + i)
		e.State, e.Verb, e.Connector = []byte(states[i%len(states)]), words[i%len(words)], i%100
		all = append(all, d, e)
	}
	return all
}

// insertSample writes messages as one batch.
func insertSample(ctx context.Context, w *Writer, messages []event.Decoded) error {
	var j job
	for i := range messages {
		j.fresh.add(&messages[i])
	}
	for {
		err := w.attempt(ctx, &j, patience)
		if err == nil || outcomeOf(err) == refused {
			return err
		}
		w.metrics.retries.Inc()
	}
}

// content returns the rows of all tables as PostgreSQL prints them.
func content(t *testing.T, pool *pgxpool.Pool) (text string) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT string_agg(r, E'\n' ORDER BY r) FROM (
		SELECT m::text AS r FROM measurement m UNION ALL SELECT e::text FROM device_event e) AS all_rows`).Scan(&text))
	return text
}

// TestPooledRowsAreTheSame writes the same messages with and without a pooler.
func TestPooledRowsAreTheSame(t *testing.T) {
	t.Parallel()
	ways := newPoolers(t, nil)
	messages := sample(0, 24)
	require.NoError(t, insertSample(t.Context(), writerOn(t, ways.direct.Pool, nil), messages))
	want := content(t, ways.direct.Pool)
	_, err := ways.direct.Exec(t.Context(), "TRUNCATE measurement, device_event")
	require.NoError(t, err)
	require.NoError(t, insertSample(t.Context(), writerOn(t, ways.pooled.Pool, nil), messages))
	assert.Equal(t, want, content(t, ways.direct.Pool))
	assert.Contains(t, want, "ümläut")
	for sql, types := range map[string][]string{
		insertMeasurements: {"_timestamptz", "_timestamptz", "_timestamptz", "_int4", "_int4", "_float8", "_text"},
		insertEvents:       {"_timestamptz", "_timestamptz", "_timestamptz", "_uuid", "_int4", "_text", "_text", "_text", "_int2", "_text", "_text", "_jsonb", "_bool"},
	} {
		assert.Equal(t, types, parameterTypes(t, ways.pooled.Pool, sql), "as PostgreSQL describes them, through the pooler")
	}
}

func parameterTypes(t *testing.T, pool *pgxpool.Pool, sql string) (names []string) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	d, err := conn.Conn().PgConn().Prepare(t.Context(), "", sql, nil)
	require.NoError(t, err)
	for _, oid := range d.ParamOIDs {
		found, ok := conn.Conn().TypeMap().TypeForOID(oid)
		require.True(t, ok, oid)
		names = append(names, found.Name)
	}
	return names
}

// TestPoolExhausted: writers wait for a connection longer than the pooler allows. Their
// messages are written nevertheless.
func TestPoolExhausted(t *testing.T) {
	t.Parallel()
	ways := newPoolers(t, map[string]string{"default_pool_size": "1", "query_wait_timeout": "1"})
	holder, err := ways.pooled.Begin(t.Context())
	require.NoError(t, err)
	_, err = holder.Exec(t.Context(), "SELECT 1")
	require.NoError(t, err)
	var writing sync.WaitGroup
	const writers, each = 3, 20
	all := make([]*Writer, writers)
	for n := range writers {
		all[n] = writerOn(t, ways.pooled.Pool, nil)
		writing.Go(func() {
			for i := range each {
				assert.NoError(t, insertSample(t.Context(), all[n], sample(1000*n+i, 1)))
			}
		})
	}
	require.Eventually(t, func() bool { return count(t, all[0].metrics.retries) > 1 }, patience, 20*time.Millisecond, "nobody was made to wait")
	var rows int
	measurements := func() int {
		require.NoError(t, ways.direct.QueryRow(t.Context(), "SELECT count(*) FROM measurement").Scan(&rows))
		return rows
	}
	require.Zero(t, measurements(), "the control: nothing goes through")
	require.NoError(t, holder.Rollback(t.Context()))
	writing.Wait()
	assert.Equal(t, 2*writers*each, measurements())
}

// BenchmarkInsert measures the cost of the pooler for the writer's insert of 15,000 rows: go
// test -run='^$' -bench=Insert ./services/writer.
func BenchmarkInsert(b *testing.B) {
	ways := newPoolers(b, nil)
	from := 0
	for _, way := range []struct {
		name string
		pool *database.Pool
		mode pgx.QueryExecMode
	}{
		{"direct", ways.direct, pgx.QueryExecModeCacheStatement},
		{"direct", ways.direct, pgx.QueryExecModeCacheDescribe},
		{"pooled", ways.pooled, pgx.QueryExecModeCacheDescribe},
	} {
		b.Run(fmt.Sprintf("%s/%s", way.name, way.mode), func(b *testing.B) {
			config := way.pool.Config()
			config.ConnConfig.DefaultQueryExecMode, config.MaxConns = way.mode, 1
			pool, err := pgxpool.NewWithConfig(b.Context(), config)
			require.NoError(b, err)
			defer pool.Close()
			benchmarkInsert(b, pool, &from)
		})
	}
}

func benchmarkInsert(b *testing.B, pool *pgxpool.Pool, from *int) {
	b.Helper()
	const batch = 5000
	_, err := pool.Exec(b.Context(), "TRUNCATE measurement, device_event")
	require.NoError(b, err)
	for b.Loop() {
		b.StopTimer()
		var r rows
		for i := range batch {
			d := reading(*from + i)
			d.Values = append(d.Values, event.DataPoint{DataPointID: 3, Number: 700})
			r.add(&d)
		}
		*from += batch
		var queued pgx.Batch
		r.insert(&queued)
		b.StartTimer()
		require.NoError(b, pool.SendBatch(b.Context(), &queued).Close())
	}
	b.ReportMetric(3*batch*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
