package writer

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// of returns a message of the n-th controller of a fleet, with its own sensor device.
func of(n int, d event.Decoded) event.Decoded {
	d.MAC, d.ControllerID = fmt.Sprintf("e4fd45f600%02x", n), int32(n)
	d.ID = event.PlaceID(1, 100*d.ID.Sequence()+uint64(n))
	if d.DeviceID != 0 {
		d.DeviceID = int32(1000 + n)
	}
	return d
}

const (
	fleet = 21
	bad   = 7 // the controller that has the faults
)

// everybody returns a message of each controller of the fleet.
func everybody(message func(at int) event.Decoded, at int) (all []event.Decoded) {
	for n := range fleet {
		all = append(all, of(n, message(at)))
	}
	return all
}

// trigger installs a trigger in PL/pgSQL for the rows of a table that meet a condition.
func (m *mesh) trigger(table, condition, statements string) {
	m.t.Helper()
	m.exec(fmt.Sprintf(`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF %s THEN %s; END IF; RETURN NEW; END $$`, condition, statements))
	m.exec(fmt.Sprintf(`CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION refuse()`, table))
}

func (m *mesh) exec(sql string) {
	m.t.Helper()
	_, err := m.w.pool.Exec(m.t.Context(), sql)
	require.NoError(m.t, err, sql)
}

// run runs the writer until the test ends.
func (m *mesh) run() {
	m.t.Helper()
	messages, _, err := m.streams.Consume(m.t.Context(), m.consumer, 2000, maxBatchBytes)
	require.NoError(m.t, err)
	m.w.reads(m.consumer)
	ctx, cancel := context.WithCancel(m.t.Context())
	forwarded := make(chan jetstream.Msg)
	go func() {
		defer close(forwarded)
		for {
			select {
			case one := <-messages:
				select {
				case forwarded <- one:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- m.w.process(ctx, forwarded) }()
	m.t.Cleanup(func() {
		cancel()
		require.NoError(m.t, <-ended)
	})
}

// publish stores messages on DECODED.
func (m *mesh) publish(messages ...*nats.Msg) {
	m.t.Helper()
	_, err := m.client.Store(m.t.Context(), stream.Decoded, messages)
	require.NoError(m.t, err)
}

func (m *mesh) eventually(condition func() bool, what string) {
	m.t.Helper()
	require.Eventually(m.t, condition, patience, 20*time.Millisecond, what)
}

// TestOneControllersRowsAreRefused: a trigger refuses the rows of one controller, with various
// errors, while 20 others send. Their rows are written; its messages become dead letters that
// name what to fix.
func TestOneControllersRowsAreRefused(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"53400", "P0001", "0A000", "23514", "23505", "42501", "42P01", "55000", "XX000", "22003"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			m.write(everybody(reading, 1)...)
			m.write(everybody(occurrence, 1)...)
			raise := fmt.Sprintf("RAISE EXCEPTION USING ERRCODE = '%s', MESSAGE = 'SECRET', DETAIL = 'SECRET'", state)
			m.trigger("measurement", fmt.Sprintf("NEW.device_id = %d", 1000+bad), raise)
			for at := 2; at < 5; at++ {
				m.write(everybody(reading, at)...)
			}
			assert.Equal(t, 2*(fleet+3*(fleet-1)), query[int](m, "SELECT count(*) FROM measurement"))
			letters := m.letters()
			require.Len(t, letters, 3)
			for i, l := range letters {
				d := of(bad, reading(i+2))
				assert.Equal(t, "f2.dead.writer.refused_by_database."+d.MAC, l.Subject)
				assert.Equal(t, d.ID.String(), l.Header.Get(event.HeaderID))
				assert.Equal(t, state, l.Header.Get(deadletter.HeaderSQLState))
				detail := l.Header.Get(deadletter.HeaderDetail)
				assert.Contains(t, detail, "SQLSTATE "+state)
				assert.Contains(t, detail, "raised by the function refuse")
				assert.NotContains(t, detail, "SECRET")
			}

			m.exec("DROP TRIGGER refuse ON measurement")
			m.trigger("device_event", fmt.Sprintf("NEW.controller_id = %d", bad), raise)
			m.write(everybody(occurrence, 5)...)
			m.write(of(bad, occurrence(6)))
			assert.Equal(t, 2*fleet-1, query[int](m, "SELECT count(*) FROM device_event"))
			assert.Len(t, m.letters(), 5, "also alone in its batch")

			m.exec("DROP TRIGGER refuse ON device_event")
			m.write(everybody(occurrence, 7)...)
			m.write(everybody(reading, 7)...)
			assert.Len(t, m.letters(), 5, "the control: without the trigger nothing is refused")
			assert.Equal(t, 3*fleet-1, query[int](m, "SELECT count(*) FROM device_event"))
		})
	}
}

// TestOnlyControllerIsRefused: the mesh has one controller. A single refused row becomes a
// dead letter, since the table accepts a copy of an earlier row. If the table accepts none of
// those, the writer waits.
func TestOnlyControllerIsRefused(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.trigger("measurement", "NEW.value < 0", "RAISE EXCEPTION 'no'")
	odd := reading(1)
	odd.Values[0].Number = -1
	m.write(odd)
	assert.Len(t, m.letters(), 1, "also the first message of an empty table")
	m.write(reading(2), reading(3))
	odd = reading(4)
	odd.Values[0].Number = -1
	m.write(odd)
	assert.Len(t, m.letters(), 2)

	const refused = "table measurement: SQLSTATE P0001, raised by the function refuse"
	m.trigger("measurement", "true", "RAISE EXCEPTION 'no'")
	waiting, cause := m.w.write(t.Context(), m.fetch(encoded(reading(5))...))
	require.NoError(t, cause)
	assert.Empty(t, waiting, "it is apart, after its refusals")
	_, cause = m.w.apart.turn(t.Context(), quick)
	require.Error(t, cause)
	assert.Equal(t, refused, fault(cause))
	m.w.apart.controllers = map[string]*troubled{} // and where it is not
	m.w.apart.held = map[uint64]struct{}{}
	waiting, cause = m.w.write(t.Context(), m.fetch(encoded(reading(6))...))
	require.Len(t, waiting, 1)
	require.Error(t, cause)
	assert.Equal(t, refused, fault(cause))
	m.exec("DROP TRIGGER refuse ON measurement")
	waiting, cause = m.w.write(t.Context(), waiting)
	require.NoError(t, cause)
	assert.Empty(t, waiting)
	assert.Len(t, m.letters(), 2)
	assert.Equal(t, 6, query[int](m, "SELECT count(*) FROM measurement"))
}

// TestProbeAfterRestart: a writer that has written nothing yet probes with rows of the table.
func TestProbeAfterRestart(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.write(everybody(reading, 1)...)
	m.w.taken.all = map[string][]remembered{}
	m.trigger("measurement", fmt.Sprintf("NEW.device_id = %d", 1000+bad), "RAISE EXCEPTION 'no'")
	m.write(of(bad, reading(2)))
	assert.Len(t, m.letters(), 1)
	assert.Equal(t, 2*fleet, query[int](m, "SELECT count(*) FROM measurement"), "what was tried is not there")
}

// TestRowsOfAllControllersAreRefused: a trigger accepts the existing rows and refuses all new ones.
// That is no controller's fault: the writer waits until rows of other controllers are
// accepted.
func TestRowsOfAllControllersAreRefused(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.write(everybody(reading, 1)...)
	m.trigger("measurement", fmt.Sprintf("NEW.time > '%s'", epoch.Add(5*time.Second).Format(time.RFC3339)), "RAISE EXCEPTION 'no'")
	waiting, cause := m.w.write(t.Context(), m.fetch(encoded(everybody(reading, 10)...)...))
	require.Len(t, waiting, fleet)
	require.ErrorAs(t, cause, new(refusesAllError))
	assert.Empty(t, m.letters())

	m.trigger("measurement", fmt.Sprintf("NEW.device_id IN (%d, %d)", 1000+bad, 1001+bad), "RAISE EXCEPTION 'no'")
	waiting, cause = m.w.write(t.Context(), waiting)
	require.NoError(t, cause)
	assert.Empty(t, waiting)
	m.settleApart()
	assert.Len(t, m.letters(), 2, "the control: others' rows are taken, so that these two are at fault")

	// One after the other, each alone in its batch.
	m.trigger("measurement", "NEW.value = 1", "RAISE EXCEPTION 'no'")
	for n := range 3 {
		d := of(n, reading(20))
		d.Values[0].Number = 1
		rest, _ := m.w.write(t.Context(), m.fetch(encoded(d)...))
		waiting = append(waiting, rest...)
	}
	m.settleApart()
	assert.Len(t, m.letters(), 3, "the first: nothing else is known yet")
	assert.Len(t, waiting, 2)
	rest, cause := m.w.write(t.Context(), append(waiting, m.fetch(encoded(of(3, reading(20)))...)...))
	require.NoError(t, cause)
	assert.Empty(t, rest)
	m.settleApart()
	assert.Len(t, m.letters(), 5)
}

// TestTableAcceptsNoRows covers faults of the database: no message becomes a dead letter, an
// alarm is raised and cleared, and everything is written in the end.
func TestTableAcceptsNoRows(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ spoil, fix, says string }{
		"missing table": {
			"ALTER TABLE measurement RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO measurement",
			"table measurement: SQLSTATE 42P01 (a table is missing)",
		},
		"missing history": {
			"ALTER TABLE measurement_history RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO measurement_history",
			"table measurement_history: SQLSTATE 42P01 (a table is missing)",
		},
		"missing column": {
			"ALTER TABLE measurement RENAME COLUMN received TO elsewhere", "ALTER TABLE measurement RENAME COLUMN elsewhere TO received",
			"table measurement: SQLSTATE 42703 (a column is missing)",
		},
		"read-only server": {
			"ALTER DATABASE %s SET default_transaction_read_only = on", "BEGIN READ WRITE; ALTER DATABASE %s RESET default_transaction_read_only; COMMIT",
			"SQLSTATE 25006 (the server is read-only)",
		},
		"constraint that nothing meets": {
			"ALTER TABLE measurement ADD CONSTRAINT nothing CHECK (time < '2000-01-01') NOT VALID", "ALTER TABLE measurement DROP CONSTRAINT nothing",
			"table measurement: SQLSTATE 23514, table measurement, constraint nothing",
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			m.write(everybody(reading, 1)...)
			database := query[string](m, "SELECT current_database()")
			m.exec(strings.ReplaceAll(test.spoil, "%s", database))
			m.w.pool.Reset()
			alarms, err := m.client.JetStream().Conn().SubscribeSync("f2.alarm.writer." + DatabaseRefuses)
			require.NoError(t, err)
			require.NoError(t, m.client.JetStream().Conn().Flush())
			m.run()
			second := everybody(reading, 1)
			for i := range second {
				second[i].ID, second[i].Values[0].Number = event.PlaceID(2, uint64(i+1)), 7
			}
			m.publish(encoded(second...)...)
			m.publish(encoded(everybody(reading, 2)...)...)
			_, err = alarms.NextMsg(patience)
			require.NoError(t, err)
			raised := m.w.Alarms()
			require.Equal(t, 1, raised.Total)
			assert.Equal(t, test.says, raised.Alarms[0].Detail)
			require.ErrorContains(t, m.w.Ready(t.Context()), test.says)
			assert.Empty(t, m.letters())

			m.exec(strings.ReplaceAll(test.fix, "%s", database))
			m.w.pool.Reset()
			_, err = alarms.NextMsg(patience)
			require.NoError(t, err)
			assert.Zero(t, m.w.Alarms().Total)
			m.eventually(func() bool { return query[int](m, "SELECT count(*) FROM measurement") == 4*fleet }, "not everything was written")
			m.eventually(func() bool { return query[int](m, "SELECT count(*) FROM measurement_history") == fleet }, "a conflict was lost")
			require.NoError(t, m.w.Ready(t.Context()))
			assert.Empty(t, m.letters())
		})
	}
}
