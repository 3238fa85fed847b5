package writer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

var epoch = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// reading returns a decoded reading at a second.
func reading(at int) event.Decoded {
	when := epoch.Add(time.Duration(at) * time.Second)
	return event.Decoded{
		ID: event.PlaceID(1, uint64(2*at+2)), Time: when, Received: when.Add(time.Millisecond),
		Root: "tele", MAC: "e4fd45f654be", ControllerID: 1, Mode: "sensor-mode", Connector: 1, Component: "sensor-1",
		DeviceID: 2, Device: "Hall", MetadataVersion: "00ff",
		Values: []event.DataPoint{
			{DataPointID: 1, Label: "Temperature", Number: 25.52, Unit: "°C"},
			{DataPointID: 2, Label: "Firmware", Text: new("F2S-2.14")},
		},
	}
}

// occurrence returns an event of a door at a second.
func occurrence(at int) event.Decoded {
	d := reading(at)
	d.ID, d.DeviceID, d.Device, d.Values = event.PlaceID(1, uint64(2*at+3)), 0, "", nil
	d.Mode, d.Component, d.State = "access-control-mode", "door-sensors", []byte(`{"door-sensor-2":true}`)
	return d
}

// TestOutcome covers the decision between refused rows, which loses good rows if it is wrong,
// and waiting, which blocks the stream for ever if it is wrong.
func TestOutcome(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]outcome{
		"22003": refused, "22021": refused, "22P05": refused, "23502": refused, "23505": refused, "23514": refused, "54000": refused,
		"53400": refused, "P0001": refused, "0A000": refused, "42P01": refused, "42501": refused, "55000": refused, "XX000": refused,
		"28P01": unable, "28000": unable, "53100": unable, "53300": unable, "57P01": unable, "57P03": unable, "08006": unable,
		"40001": unable, "40P01": unable, "55P03": unable, "25006": unable, "58030": unable, "XX001": unable,
		"57014": slow, "22": unable, "": unable,
	} {
		assert.Equal(t, want, outcomeOf(fmt.Errorf("writing: %w", &pgconn.PgError{Code: state})), state)
	}
	for err, want := range map[error]outcome{
		nil: written, io.EOF: unable, context.Canceled: unable, context.DeadlineExceeded: slow, errors.New("SQLSTATE 22003"): unable,
	} {
		assert.Equal(t, want, outcomeOf(err), "%v", err)
	}
}

// TestFault covers the description of an error in a letter: names, and no values.
func TestFault(t *testing.T) {
	t.Parallel()
	err := &pgconn.PgError{
		Code: "23514", Message: `new row violates check "SECRET"`, Detail: "Failing row contains (SECRET).",
		TableName: "measurement", ConstraintName: "measurement_has_value", ColumnName: "value",
		Where: "PL/pgSQL function refuse() line 3 at RAISE\nSECRET",
	}
	assert.Equal(t, "SQLSTATE 23514, table measurement, column value, constraint measurement_has_value, raised by the function refuse", fault(err))
	assert.Equal(t, "table measurement: SQLSTATE 42P01 (a table is missing)", fault(tableError{"measurement", &pgconn.PgError{Code: "42P01"}}))
	assert.Equal(t, "the rows of all controllers are refused: SQLSTATE P0001", fault(refusesAllError{&pgconn.PgError{Code: "P0001", Message: "SECRET"}}))
	assert.Equal(t, "SQLSTATE P0001", fault(&pgconn.PgError{Code: "P0001", Where: "SQL statement \"SECRET\"\nPL/pgSQL function f() line 1"}))
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"no DSN":                            func(c *Config) { c.DSN = "" },
		"no batch":                          func(c *Config) { c.Batch = 0 },
		"a batch over the limit":            func(c *Config) { c.Batch = 20001 },
		"negative linger":                   func(c *Config) { c.Linger = -1 },
		"no time to drain":                  func(c *Config) { c.DrainTimeout = 0 },
		"no age to compress at":             func(c *Config) { c.CompressAfter = 0 },
		"negative retention":                func(c *Config) { c.Retention = -1 },
		"retention before the compression":  func(c *Config) { c.Retention = time.Hour },
		"retention as early as compression": func(c *Config) { c.Retention = c.CompressAfter },
	} {
		c := Config{DSN: "postgres://", Batch: 20000, CompressAfter: 2 * time.Hour, Retention: 3 * time.Hour, DrainTimeout: 1}
		require.NoError(t, c.Validate(), "the control")
		spoil(&c)
		require.Error(t, c.Validate(), name)
	}
}

// TestWritersStartTogether starts several writers on an empty database: one migrates, and none
// fails.
func TestWritersStartTogether(t *testing.T) {
	t.Parallel()
	dsn := cluster.NewDatabase(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const writers = 4
	errs := make(chan error, writers)
	w := newWriter(t, dsn, nil)
	for range writers {
		another := newWriter(t, dsn, nil)
		go func() { errs <- another.prepareTables(ctx, another.pool) }()
	}
	for range writers {
		require.NoError(t, <-errs)
	}
	var migrated int
	require.NoError(t, w.pool.QueryRow(ctx, "SELECT count(*) FROM goose_db_version WHERE version_id > 0").Scan(&migrated))
	assert.Equal(t, 2, migrated)
	for _, name := range []string{"measurement", "device_event", "measurement_history", "measurement_hourly", "measurement_daily"} {
		var rows int
		require.NoError(t, w.pool.QueryRow(ctx, "SELECT count(*) FROM "+name).Scan(&rows), name)
		assert.Zero(t, rows, name)
	}
	require.Error(t, w.pool.QueryRow(ctx, "SELECT count(*) FROM measurement_weekly").Scan(new(int)), "the control")
}

// TestRedeliveryChangesNothing writes a batch twice, like after a lost acknowledgement.
func TestRedeliveryChangesNothing(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	batch := []event.Decoded{reading(1), occurrence(1), reading(2), occurrence(2)}
	const rows = 6
	var before string
	for range 2 {
		m.write(batch...)
		now := query[string](m, `SELECT string_agg(line, ';' ORDER BY line) FROM (
			SELECT xmin::text || measurement::text AS line FROM measurement UNION ALL SELECT xmin::text || device_event::text FROM device_event) AS lines`)
		if before != "" {
			assert.Equal(t, before, now)
		}
		before = now
	}
	assert.Equal(t, rows, count(t, m.w.metrics.written))
	assert.Equal(t, rows, count(t, m.w.metrics.duplicates))
	assert.Equal(t, 2*len(batch), count(t, m.w.metrics.received))
	assert.Empty(t, m.letters())
	assert.Equal(t, 2, query[int](m, "SELECT count(*) FROM measurement WHERE value = 25.52 AND text_value IS NULL AND device_id = 2 AND datapoint_id = 1"))
	assert.Equal(t, 2, query[int](m, "SELECT count(*) FROM measurement WHERE value IS NULL AND text_value = 'F2S-2.14'"))
	assert.Equal(t, 2, query[int](m, `SELECT count(*) FROM device_event WHERE state = '{"door-sensor-2": true}' AND component = 'door-sensors' AND verb = ''`))
	assert.InDelta(t, 25.52, query[float64](m, "SELECT average FROM measurement_daily WHERE readings = 2"), 1e-9)

	info, err := m.consumer.Info(t.Context())
	require.NoError(t, err)
	assert.Zero(t, info.NumPending)

	m.write(reading(3), occurrence(3))
	assert.Equal(t, rows+3, count(t, m.w.metrics.written), "the control: what is new is written")
}

// TestRefusedRowIsAlone: PostgreSQL refuses one row among good ones.
func TestRefusedRowIsAlone(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	const size = 97 // halves unevenly
	spoiled := []struct {
		at       int
		sqlState string
		spoil    func(*event.Decoded)
	}{
		{0, "22P05", func(d *event.Decoded) { *d = occurrence(0); d.State = []byte(`{"door-sensor-2":true,"n":"\u0000"}`) }},
		{41, "22021", func(d *event.Decoded) { d.Values[1].Text = new("a\x00b") }},
		{96, "22003", func(d *event.Decoded) { *d = occurrence(2096); d.State = []byte(`{"n":1e200000}`) }},
	}
	for round, test := range spoiled {
		batch := make([]event.Decoded, size)
		for i := range batch {
			batch[i] = reading(round*1000 + i)
		}
		bad := &batch[test.at]
		test.spoil(bad)
		m.write(batch...)
		letters := m.letters()
		require.Len(t, letters, round+1, test.sqlState)
		l := letters[round]
		assert.Equal(t, "f2.dead.writer.refused_by_database.e4fd45f654be", l.Subject)
		assert.Equal(t, test.sqlState, l.Header.Get(deadletter.HeaderSQLState))
		assert.Equal(t, bad.ID.String(), l.Header.Get(event.HeaderID))
		assert.Equal(t, strconv.FormatUint(bad.ID.Sequence(), 10), l.Header.Get(deadletter.HeaderRawSequence))
		assert.Empty(t, l.Data, "it is in RAW")
		assert.Equal(t, "PostgreSQL refused the message's rows: SQLSTATE "+test.sqlState, l.Header.Get(deadletter.HeaderDetail), "no contents")
		written := query[int](m, "SELECT count(*) FROM measurement WHERE time >= $1 AND time < $2",
			epoch.Add(time.Duration(round*1000)*time.Second), epoch.Add(time.Duration(round*1000+size)*time.Second))
		assert.Equal(t, 2*(size-1), written, "all others, and nothing of the refused message")
	}
	assert.Zero(t, query[int](m, "SELECT count(*) FROM device_event"))
	m.write(occurrence(1), reading(5000))
	assert.Len(t, m.letters(), len(spoiled), "the control: good rows make no letters")
	assert.Equal(t, 1, query[int](m, "SELECT count(*) FROM device_event"))
}

// TestNotDecoded: an operator has published an invalid message.
func TestNotDecoded(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	good := reading(1)
	m.writeRaw(
		&nats.Msg{Subject: "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1", Header: nats.Header{}, Data: []byte("{")},
		&nats.Msg{Subject: "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1", Header: nats.Header{}, Data: good.AppendJSON(nil)},
		&nats.Msg{Subject: "f2.decoded.e4fd45f654be.sensor-mode.100.sensor-1", Header: nats.Header{}, Data: good.AppendJSON(nil)},
	)
	letters := m.letters()
	require.Len(t, letters, 2)
	assert.Equal(t, "message 3 of DECODED is not a DECODED message: bad subject: bad_connector", letters[1].Header.Get(deadletter.HeaderDetail))
	assert.Equal(t, "f2.dead.writer.bad_decoded.e4fd45f654be", letters[0].Subject)
	assert.Equal(t, "{", string(letters[0].Data))
	assert.Equal(t, "message 1 of DECODED is not a DECODED message: bad JSON at byte 1", letters[0].Header.Get(deadletter.HeaderDetail))
	assert.Equal(t, 2, query[int](m, "SELECT count(*) FROM measurement"))
}

// TestViewsAreMadeOnce: several writers create the views at the same time, after the tables
// were migrated.
func TestViewsAreMadeOnce(t *testing.T) {
	t.Parallel()
	dsn := cluster.NewDatabase(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := newWriter(t, dsn, nil)
	require.NoError(t, migrate(ctx, w.pool, 0, w.log))
	for range 20 {
		const writers = 4
		errs := make(chan error, writers)
		for range writers {
			go func() { errs <- alone(ctx, w.pool, preparePlain) }()
		}
		for range writers {
			require.NoError(t, <-errs)
		}
		for _, a := range aggregates {
			_, err := w.pool.Exec(ctx, "DROP VIEW "+a.name)
			require.NoError(t, err)
		}
	}
}
