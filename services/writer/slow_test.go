package writer

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// TestOneControllersRowsAreSlow: a trigger never ends for the rows of one controller, while 20
// others send. Their rows are written; its messages wait apart and become dead letters. After
// the trigger is dropped, its rows are written like others.
func TestOneControllersRowsAreSlow(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.w.apartPatience = 4 * time.Second
	m.write(everybody(reading, 1)...)
	m.trigger("measurement", fmt.Sprintf("NEW.device_id = %d", 1000+bad), "PERFORM pg_sleep(3600)")
	m.run()
	const rounds = 3
	for at := 2; at < 2+rounds; at++ {
		m.publish(encoded(everybody(reading, at)...)...)
	}
	others := func(rows int) {
		m.eventually(func() bool {
			return query[int](m, "SELECT count(*) FROM measurement WHERE device_id <> $1", 1000+bad) == rows
		},
			"other controllers' rows wait, too")
	}
	others(2 * (fleet - 1) * (1 + rounds))
	assert.Less(t, len(m.letters()), rounds, "the slow ones are still being tried")
	m.eventually(func() bool { return len(m.letters()) == rounds }, "what never ends is no dead letter")
	for i, l := range m.letters() {
		d := of(bad, reading(2+i))
		assert.Equal(t, "f2.dead.writer.refused_by_database."+d.MAC, l.Subject)
		assert.Equal(t, d.ID.String(), l.Header.Get(event.HeaderID), "in their order")
		assert.Contains(t, l.Header.Get(deadletter.HeaderDetail), "did not write the message's rows within")
	}
	assert.Zero(t, m.w.Alarms().Total)

	m.exec("DROP TRIGGER refuse ON measurement")
	m.publish(encoded(everybody(reading, 9)...)...)
	others(2 * (fleet - 1) * (2 + rounds))
	m.eventually(func() bool {
		return query[int](m, "SELECT count(*) FROM measurement WHERE device_id = $1", 1000+bad) == 4
	}, "the control: its rows are written now")
	assert.Len(t, m.letters(), rounds)
	m.eventually(func() bool { _, messages := m.w.apart.count(); return messages == 0 }, "something is left apart")
	m.settled()
}

// TestFlood: one controller sends more refused or slow messages than the writer can try, while
// others send. Messages that are not tried become dead letters, too.
func TestFlood(t *testing.T) {
	t.Parallel()
	const flood = 500
	for name, test := range map[string]struct {
		does, says string
		room       int
	}{
		"refused":     {"RAISE EXCEPTION USING ERRCODE = '53400'", "PostgreSQL refused the message's rows: SQLSTATE 53400", 100 << 10},
		"slow":        {"PERFORM pg_sleep(0.6)", "(it did not finish in time), and too many of its messages wait", 10 << 10},
		"the control": {"NULL", "", 20 << 10},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			m.w.apart.limit = test.room
			m.write(everybody(reading, 1)...)
			m.trigger("measurement", fmt.Sprintf("NEW.device_id = %d", 1000+bad), test.does)
			m.run()
			for at := 2; at < 2+flood; at += 100 {
				var some []event.Decoded
				for i := range 100 {
					some = append(some, of(bad, reading(at+i)))
				}
				m.publish(encoded(append(some, of(bad+1, reading(at)))...)...)
			}
			m.settled()
			assert.Equal(t, 2*(1+flood/100), query[int](m, "SELECT count(*) FROM measurement WHERE device_id = $1", 1001+bad))
			rows := query[int](m, "SELECT count(*) FROM measurement WHERE device_id = $1", 1000+bad)
			if name == "the control" {
				assert.Equal(t, 2*(1+flood), rows)
				assert.Empty(t, m.letters())
				return
			}
			letters := m.letters()
			require.NotEmpty(t, letters)
			var details strings.Builder
			for _, l := range letters {
				details.WriteString(l.Header.Get(deadletter.HeaderDetail))
			}
			counted, err := strconv.Atoi(letters[len(letters)-1].Header.Get(deadletter.HeaderCount))
			require.NoError(t, err)
			if name == "refused" {
				assert.Equal(t, 2, rows)
				assert.Equal(t, flood, counted)
			} else { // what PostgreSQL finishes after all is both
				assert.GreaterOrEqual(t, counted+rows/2-1, flood, "a message is neither written nor counted")
			}
			assert.Contains(t, details.String(), test.says)
		})
	}
}

// settled waits until all messages of DECODED are acknowledged.
func (m *mesh) settled() {
	m.t.Helper()
	m.eventually(func() bool {
		info, err := m.consumer.Info(m.t.Context())
		require.NoError(m.t, err)
		return info.NumPending == 0 && info.NumAckPending == 0
	}, "messages are left in DECODED")
}

// TestLockedRow: another session locks the key of one row for longer than a batch may take.
// Its message waits apart and is written when the lock is released.
func TestLockedRow(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.write(everybody(reading, 1)...)
	holder, err := m.w.pool.Begin(t.Context())
	require.NoError(t, err)
	d := of(bad, reading(2))
	var b pgx.Batch
	var r rows
	r.add(&d)
	r.insert(&b)
	require.NoError(t, holder.SendBatch(t.Context(), &b).Close())
	m.run()
	m.publish(encoded(everybody(reading, 2)...)...)
	m.eventually(func() bool { return query[int](m, "SELECT count(*) FROM measurement") == 2*(2*fleet-1) }, "others' rows wait for the lock")
	m.eventually(func() bool { controllers, _ := m.w.apart.count(); return controllers == 1 }, "not apart")
	require.NoError(t, holder.Rollback(t.Context()))
	m.eventually(func() bool { return query[int](m, "SELECT count(*) FROM measurement") == 4*fleet }, "not written")
	m.settled()
	assert.Empty(t, m.letters())
}

// TestLockedTable: another session locks the whole table. Everything waits, with an alarm.
func TestLockedTable(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.write(everybody(reading, 1)...)
	holder, err := m.w.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = holder.Exec(t.Context(), "LOCK TABLE measurement IN EXCLUSIVE MODE")
	require.NoError(t, err)
	m.run()
	m.publish(encoded(everybody(reading, 2)...)...)
	m.eventually(func() bool { return m.w.Alarms().Total == 1 }, "no alarm")
	assert.Equal(t, "table measurement: it did not finish in time", m.w.Alarms().Alarms[0].Detail)
	require.NoError(t, holder.Rollback(t.Context()))
	m.eventually(func() bool { return query[int](m, "SELECT count(*) FROM measurement") == 4*fleet }, "not written")
	m.eventually(func() bool { return m.w.Alarms().Total == 0 }, "the alarm stays")
	m.settled()
	assert.Empty(t, m.letters())
	controllers, _ := m.w.apart.count()
	assert.Zero(t, controllers)
}

// TestBatchTakesTooLong: every row takes long. A batch that cannot be written in time is
// written in parts, and the next batches are smaller.
func TestBatchTakesTooLong(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.write(everybody(occurrence, 1)...)
	m.trigger("device_event", "true", "PERFORM pg_sleep(0.02)")
	var batch []event.Decoded
	for at := range 100 {
		batch = append(batch, of(1+at%2, occurrence(10+at)))
	}
	waiting, cause := m.w.write(t.Context(), m.fetch(encoded(batch...)...))
	require.NoError(t, cause)
	assert.Empty(t, waiting)
	assert.Less(t, m.w.limit, len(batch))
	smaller := m.w.limit
	m.exec("DROP TRIGGER refuse ON device_event")
	batch = nil
	for at := range 10 * smaller {
		batch = append(batch, of(3, occurrence(1000+at)))
	}
	m.write(batch...)
	assert.Greater(t, m.w.limit, smaller, "the control: they get larger again")
	m.run() // what was slow alone
	m.eventually(func() bool { return query[int](m, "SELECT count(*) FROM device_event") == fleet+100+len(batch) }, "not everything is written")
	assert.Empty(t, m.letters())
	m.settled()
}

// TestMemoryIsBounded: large events wait for a locked table. The writer's memory is limited by
// bytes, not by the number of messages.
func TestMemoryIsBounded(t *testing.T) { //nolint:paralleltest // it measures the heap of the process
	m := newMesh(t)
	m.w.cfg.Batch, m.w.limit = 5000, 5000
	const messages, length, bound = 1500, 60_000, 56 << 20
	d := occurrence(1)
	d.State = []byte(`{"data":"` + strings.Repeat("x", length) + `"}`)
	for at := 0; at < messages; at += 100 {
		var some []event.Decoded
		for i := range 100 {
			e := d
			e.ID, e.Time = event.PlaceID(1, uint64(at+i+1)), e.Time.Add(time.Duration(at+i)*time.Millisecond)
			some = append(some, e)
		}
		m.publish(encoded(some...)...)
	}
	holder, err := m.w.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = holder.Exec(t.Context(), "LOCK TABLE device_event IN EXCLUSIVE MODE")
	require.NoError(t, err)
	var before, during runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	m.run()
	m.eventually(func() bool { return m.w.Alarms().Total == 1 }, "no alarm")
	runtime.GC()
	runtime.ReadMemStats(&during)
	t.Logf("%d MiB more, of %d", (int64(during.HeapAlloc)-int64(before.HeapAlloc))>>20, messages*length>>20)
	assert.Less(t, int64(during.HeapAlloc), int64(before.HeapAlloc)+bound)
	require.NoError(t, holder.Rollback(t.Context()))
	m.eventually(func() bool { return query[int](m, "SELECT count(*) FROM device_event") > 0 }, "not written")
	assert.Empty(t, m.letters())
}

// TestStalled covers the readiness while messages wait.
func TestStalled(t *testing.T) {
	t.Parallel()
	var p progress
	at := func(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }
	assert.Zero(t, p.stalled(0, 0, at(0)), "nothing waits")
	assert.Zero(t, p.stalled(0, 5, at(100)), "it has only come")
	assert.Equal(t, 31*time.Second, p.stalled(0, 7, at(131)))
	assert.Zero(t, p.stalled(1, 6, at(132)), "one is settled")
	assert.Equal(t, 5*time.Second, p.stalled(1, 6, at(137)))
	assert.Zero(t, p.stalled(1, 0, at(200)))
	assert.Zero(t, p.stalled(1, 1, at(300)))
}
