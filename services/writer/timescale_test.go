package writer

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
)

// newTimescaleMesh returns a mesh with TimescaleDB tables. Debian does not have the extension,
// so that the test is skipped without it.
func newTimescaleMesh(t *testing.T) *mesh {
	t.Helper()
	m := newMesh(t)
	m.w.cfg.Timescale, m.w.cfg.CompressAfter, m.w.cfg.Retention = true, 7*24*time.Hour, 90*24*time.Hour
	available, err := timescaleAvailable(t.Context(), m.w.pool)
	require.NoError(t, err)
	if !available {
		accounttest.SkipWithoutTimescale(t)
	}
	return m
}

// policies returns the settings of the jobs of one kind, by table.
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

// lately moves messages into the last hour: the policies run as soon as they are created, and
// would remove older rows.
func lately(d event.Decoded) event.Decoded {
	d.Time = time.Now().UTC().Truncate(time.Hour).Add(d.Time.Sub(epoch))
	return d
}

// TestTimescale starts with plain tables that have rows, like a fleet that installs the
// extension later.
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
	all := func(age time.Duration) map[string]time.Duration {
		ages := both(age)
		ages["measurement_history"] = age
		return ages
	}
	assert.Equal(t, both(7*24*time.Hour), m.policies("policy_compression", "compress_after"))
	assert.Equal(t, all(90*24*time.Hour), m.policies("policy_retention", "drop_after"))

	// Compressed rows are the same rows: one that comes again is still none, one
	// that is late is still written.
	assert.Positive(t, query[int](m, `SELECT count(compress_chunk(c)) FROM show_chunks('measurement') c`))
	before := count(t, m.w.metrics.duplicates)
	m.write(first, second)
	assert.Equal(t, 2, count(t, m.w.metrics.duplicates)-before)
	assert.Equal(t, 4, query[int](m, `SELECT count(*) FROM measurement`))
	other := lately(reading(0))
	other.Time = first.Time
	other.ID, other.Values[0].Number = event.PlaceID(1, 0x30), 1
	m.write(other)
	assert.Equal(t, []string{"conflict 1 1 30"}, m.history(), "another value at the same time")
	assert.Empty(t, m.letters())
	m.writeRaw(again(other)...) // it stays the second
	assert.Len(t, m.history(), 1)
	first.Values[0].Number = 2
	m.writeRaw(again(first)...)
	m.writeRaw(again(first)...)
	assert.Equal(t, []string{"conflict 1 1 30", "redecoded 1 25.52 02"}, m.history(), "in a compressed chunk")
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

// TestLateReadings: readings are weeks old because their controller was disconnected. They
// reach the daily aggregates, even after those were refreshed and compressed.
func TestLateReadings(t *testing.T) {
	t.Parallel()
	m := newTimescaleMesh(t)
	require.NoError(t, m.w.prepareTables(t.Context(), m.w.pool))
	assert.Equal(t, map[string]time.Duration{"measurement_hourly": 88 * 24 * time.Hour, "measurement_daily": 88 * 24 * time.Hour}, m.offsets())
	day := time.Now().UTC().Truncate(24 * time.Hour).Add(-40 * 24 * time.Hour)
	at := func(n int) event.Decoded {
		d := reading(n)
		d.Time = day.Add(time.Duration(n) * time.Minute)
		return d
	}
	readings := func() int {
		return query[int](m, `SELECT coalesce(sum(readings), 0) FROM measurement_daily WHERE bucket = $1 AND datapoint_id = 1`, day)
	}
	refresh := func() { // unless the policy itself does
		m.exec(`SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'`)
		m.eventually(func() bool {
			_, err := m.w.pool.Exec(t.Context(), `DO $$ DECLARE job int; BEGIN
			FOR job IN SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate' LOOP CALL run_job(job); END LOOP; END $$`)
			return err == nil
		}, "no refresh")
	}
	m.write(at(1), at(2))
	newer := reading(3)
	newer.Time = time.Now().UTC().Add(-3 * 24 * time.Hour)
	m.write(newer) // the watermark is behind the late ones
	refresh()
	require.Equal(t, 2, readings())
	m.exec(`SELECT compress_chunk(c, if_not_compressed => true) FROM show_chunks('measurement') c`)
	m.write(at(4), at(5), at(1))
	require.Equal(t, 2, readings(), "the control: not without a refresh")
	refresh()
	assert.Equal(t, 4, readings())
	assert.Empty(t, m.letters())

	// An earlier version's policy is widened; what retention drops stays aggregated.
	m.exec(`SELECT remove_continuous_aggregate_policy('measurement_daily')`)
	m.exec(`SELECT add_continuous_aggregate_policy('measurement_daily', start_offset => INTERVAL '7 days', end_offset => INTERVAL '1 day', schedule_interval => INTERVAL '1 hour')`)
	m.w.cfg.Retention = 35 * 24 * time.Hour
	require.NoError(t, m.w.prepareTables(t.Context(), m.w.pool))
	assert.Equal(t, 33*24*time.Hour, m.offsets()["measurement_daily"])
	m.exec(`SELECT drop_chunks('measurement', INTERVAL '35 days')`)
	refresh()
	assert.Equal(t, 4, readings())
	m.w.cfg.Retention = 0
	require.NoError(t, m.w.prepareTables(t.Context(), m.w.pool))
	assert.Empty(t, m.offsets(), "from the first row on")
}

// offsets returns how far back the continuous aggregates are refreshed, by name, if there is a
// limit.
func (m *mesh) offsets() map[string]time.Duration {
	m.t.Helper()
	rows, err := m.w.pool.Query(m.t.Context(), `SELECT view_name, extract(epoch FROM (config->>'start_offset')::interval)::int8
FROM timescaledb_information.jobs j JOIN timescaledb_information.continuous_aggregates a ON a.materialization_hypertable_name = j.hypertable_name OR a.view_name = j.hypertable_name
WHERE j.proc_name = 'policy_refresh_continuous_aggregate' AND config->>'start_offset' IS NOT NULL`)
	require.NoError(m.t, err)
	defer rows.Close()
	found := map[string]time.Duration{}
	for rows.Next() {
		var name string
		var seconds int64
		require.NoError(m.t, rows.Scan(&name, &seconds))
		found[name] = time.Duration(seconds) * time.Second
	}
	require.NoError(m.t, rows.Err())
	return found
}

// TestUpgrade starts with hypertables of the first version, with compressed chunks.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	m := newTimescaleMesh(t)
	require.NoError(t, m.w.prepareTables(t.Context(), m.w.pool))
	m.write(lately(reading(0)), lately(occurrence(0)))
	m.exec(`DROP TABLE measurement_history`)
	m.exec(`ALTER TABLE measurement DROP COLUMN device_time`)
	m.exec(`ALTER TABLE device_event DROP COLUMN device_time, DROP COLUMN possible_repeat`)
	m.exec(`DELETE FROM goose_db_version WHERE version_id = 2`)
	m.exec(`SELECT compress_chunk(c) FROM show_chunks('measurement') c`)
	m.exec(`SELECT compress_chunk(c) FROM show_chunks('device_event') c`)
	require.NoError(t, m.w.prepareTables(t.Context(), m.w.pool))
	m.write(lately(reading(0)), lately(occurrence(0)), lately(reading(1)), lately(occurrence(1)))
	assert.Equal(t, 4, query[int](m, `SELECT count(*) FROM measurement WHERE device_time IS NULL`))
	assert.Equal(t, 2, query[int](m, `SELECT count(*) FROM device_event WHERE device_time IS NULL AND NOT possible_repeat`))
	assert.Equal(t, 3, query[int](m, `SELECT count(*) FROM timescaledb_information.hypertables`))
}
