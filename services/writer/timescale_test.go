package writer

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/event"
)

// newTimescaleMesh is a mesh whose tables are TimescaleDB's. Debian does not
// have the extension, so that its absence is no failure anywhere.
func newTimescaleMesh(t *testing.T) *mesh {
	t.Helper()
	m := newMesh(t)
	m.w.cfg.Timescale, m.w.cfg.CompressAfter, m.w.cfg.Retention = true, 7*24*time.Hour, 90*24*time.Hour
	available, err := m.w.timescaleAvailable(t.Context(), m.w.pool)
	require.NoError(t, err)
	if !available {
		t.Skip("SKIPPED: TimescaleDB is not installed beside PostgreSQL: its hypertables, policies and continuous aggregates are not tested")
	}
	return m
}

// policies answers the settings of the jobs of one kind, by table.
func (m *mesh) policies(procedure, setting string) map[string]time.Duration {
	m.t.Helper()
	rows, err := m.w.pool.Query(m.t.Context(), `SELECT hypertable_name, (config->>$2)::interval FROM timescaledb_information.jobs WHERE proc_name = $1`, procedure, setting)
	require.NoError(m.t, err)
	defer rows.Close()
	found := map[string]time.Duration{}
	for rows.Next() {
		var table string
		var age pgtype.Interval
		require.NoError(m.t, rows.Scan(&table, &age))
		found[table] = time.Duration(age.Days)*24*time.Hour + time.Duration(age.Microseconds)*time.Microsecond
	}
	require.NoError(m.t, rows.Err())
	return found
}

// lately moves what the decoder made to the last hour: of older rows the policies,
// which run as soon as they are made, take hold.
func lately(d event.Decoded) event.Decoded {
	d.Time = time.Now().UTC().Truncate(time.Hour).Add(d.Time.Sub(epoch))
	return d
}

// TestTimescale begins with plain tables that hold rows, as a fleet does that
// installs the extension later.
func TestTimescale(t *testing.T) {
	t.Parallel()
	m := newTimescaleMesh(t)
	first, second := lately(reading(0)), lately(reading(1))
	m.write(first, lately(occurrence(0)))
	require.NoError(t, m.w.prepareTables(t.Context(), m.w.pool))

	assert.Equal(t, 2, query[int](m, `SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_name IN ('measurement', 'device_event')`))
	assert.Equal(t, 2, query[int](m, `SELECT count(*) FROM measurement`), "what was there before")
	assert.Equal(t, 2, query[int](m, `SELECT count(*) FROM timescaledb_information.continuous_aggregates WHERE view_name IN ('measurement_hourly', 'measurement_daily') AND NOT materialized_only`))
	assert.Equal(t, 2, query[int](m, `SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'`))
	both := func(age time.Duration) map[string]time.Duration {
		return map[string]time.Duration{"measurement": age, "device_event": age}
	}
	assert.Equal(t, both(7*24*time.Hour), m.policies("policy_compression", "compress_after"))
	assert.Equal(t, both(90*24*time.Hour), m.policies("policy_retention", "drop_after"))

	// Compressed rows are the same rows: one that comes again is still none, one
	// that is late is still written.
	assert.Positive(t, query[int](m, `SELECT count(compress_chunk(c)) FROM show_chunks('measurement') c`))
	before := count(t, m.w.metrics.duplicates)
	m.write(first, second)
	assert.Equal(t, 2, count(t, m.w.metrics.duplicates)-before)
	assert.Equal(t, 4, query[int](m, `SELECT count(*) FROM measurement`))
	other := lately(reading(0))
	other.Time = first.Time
	other.Values[0].Number = 1
	m.write(other)
	require.Len(t, m.letters(), 1, "another value at the same time")
	assert.Equal(t, 2, query[int](m, `SELECT readings FROM measurement_hourly WHERE datapoint_id = 1`))

	// A start follows the configuration, also after the policies have been lost.
	m.w.cfg.CompressAfter, m.w.cfg.Retention = 48*time.Hour, 0
	_, err := m.w.pool.Exec(t.Context(), `SELECT remove_continuous_aggregate_policy('measurement_daily')`)
	require.NoError(t, err)
	require.NoError(t, m.w.prepareTables(t.Context(), m.w.pool))
	assert.Equal(t, both(48*time.Hour), m.policies("policy_compression", "compress_after"))
	assert.Empty(t, m.policies("policy_retention", "drop_after"))
	assert.Equal(t, 2, query[int](m, `SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'`))
}
