package writer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// probeTime is how long a probe may take.
const probeTime = 2 * time.Second

// probed is a table and the statements that probe it: with a copy of one of its rows, or
// with a blank row if it is empty. A copy is a microsecond later than the original, so that
// it is really inserted.
type probed struct{ name, copied, blank string }

//nolint:gochecknoglobals // constants
var (
	measurementTable = probed{
		"measurement",
		`INSERT INTO measurement (time, device_time, received, device_id, datapoint_id, value, text_value)
SELECT time + interval '1 microsecond', device_time, received, device_id, datapoint_id, value, text_value
FROM (SELECT * FROM measurement LIMIT 100) AS held ORDER BY random() LIMIT 1 ON CONFLICT DO NOTHING`,
		`INSERT INTO measurement (time, received, device_id, datapoint_id, value) VALUES (now(), now(), 0, 0, 0) ON CONFLICT DO NOTHING`,
	}
	eventTable = probed{
		"device_event",
		`INSERT INTO device_event (time, device_time, received, event_id, controller_id, mac, root, mode, connector, component, verb, state, possible_repeat)
SELECT time + interval '1 microsecond', device_time, received, event_id, controller_id, mac, root, mode, connector, component, verb, state, possible_repeat
FROM (SELECT * FROM device_event LIMIT 100) AS held ORDER BY random() LIMIT 1 ON CONFLICT DO NOTHING`,
		`INSERT INTO device_event (time, received, event_id, controller_id, mac, root, mode, connector, component, state)
VALUES (now(), now(), '00000000-0000-0000-0000-000000000000', 0, '000000000000', 'tele', 'sensor-mode', 0, 'sensor-0', '{}') ON CONFLICT DO NOTHING`,
	}
	historyTable = probed{
		"measurement_history",
		`INSERT INTO measurement_history (time, device_id, datapoint_id, value, text_value, received, event_id, reason)
SELECT time + interval '1 microsecond', device_id, datapoint_id, value, text_value, received, event_id, reason
FROM (SELECT * FROM measurement_history LIMIT 100) AS held ORDER BY random() LIMIT 1 ON CONFLICT DO NOTHING`,
		`INSERT INTO measurement_history (time, device_id, datapoint_id, value, received, event_id, reason)
VALUES (now(), 0, 0, 0, now(), '00000000-0000-0000-0000-000000000000', 'conflict') ON CONFLICT DO NOTHING`,
	}
)

// tableProbes is how many of a table's rows are tried before the table counts as one that
// accepts none: a trigger may refuse the rows of one controller.
const tableProbes = 4

// probe returns nil if the tables of j accept rows now, or else why not. A table accepts rows
// if it accepts a copy of one that it accepted before. cause is the error that led to the
// probe. Everything is rolled back.
func (w *Writer) probe(ctx context.Context, j *job, cause error) error {
	w.metrics.probes.Inc()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	var history historyError
	tables := []struct {
		probed
		wanted bool
	}{
		{measurementTable, len(j.fresh.time)+len(j.replacing.time) > 0},
		{eventTable, len(j.fresh.eventID)+len(j.replacing.eventID) > 0},
		{historyTable, len(j.replacing.time) > 0 || errors.As(cause, &history)},
	}
	for _, t := range tables {
		if !t.wanted {
			continue
		}
		if err := w.probeTable(ctx, t.probed); err != nil {
			return tableError{t.name, err}
		}
	}
	return nil
}

func (w *Writer) probeTable(ctx context.Context, t probed) (failed error) {
	known := w.taken.rows(t.name)
	for i := range known {
		failed = w.probeWith(ctx, func(tx pgx.Tx) error {
			var b pgx.Batch
			known[i].row.insert(&b)
			return tx.SendBatch(ctx, &b).Close()
		})
		if failed == nil || outcomeOf(failed) != refused {
			return failed
		}
	}
	var holds bool
	if err := w.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.name+")").Scan(&holds); err != nil {
		return err
	}
	statements := slices.Repeat([]string{t.copied}, tableProbes)
	if !holds && len(known) == 0 {
		statements = []string{t.blank}
	} else if !holds {
		return failed
	}
	for _, sql := range statements {
		failed = w.probeWith(ctx, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, sql); return err })
		if failed == nil || outcomeOf(failed) != refused {
			return failed
		}
	}
	return failed
}

// probeWith runs what in a transaction and rolls it back.
func (w *Writer) probeWith(ctx context.Context, what func(pgx.Tx) error) error {
	tx, err := w.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	return what(tx)
}

// taken remembers, for each table, rows of several controllers that the table accepted. It
// is safe for concurrent use.
type taken struct {
	mu  sync.Mutex
	all map[string][]remembered // by table, the latest first
}

// remembered is an accepted row of a controller.
type remembered struct {
	mac string
	row rows
}

const (
	rememberedControllers = 8
	rememberedBytes       = 64 << 10 // of the message of one
)

// note remembers some rows of a written batch.
func (t *taken) note(messages []jetstream.Msg) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := 0; i < len(messages); i += max(1, len(messages)/2) {
		m := messages[i]
		var d event.Decoded
		if replaces(m) || len(m.Data()) > rememberedBytes || event.ParseDecoded(m.Subject(), m.Data(), &d) != nil {
			continue
		}
		table := measurementTable.name
		if d.State != nil {
			table = eventTable.name
		} else {
			d.Values = slices.Clone(d.Values[:min(1, len(d.Values))])
		}
		d.Time = d.Time.Add(time.Microsecond)
		one := remembered{mac: d.MAC}
		if one.row.add(&d); one.row.len() != 1 {
			continue
		}
		rest := slices.DeleteFunc(t.all[table], func(r remembered) bool { return r.mac == d.MAC })
		t.all[table] = slices.Insert(rest, 0, one)[:min(len(rest)+1, rememberedControllers)]
	}
}

// rows returns the remembered rows of a table.
func (t *taken) rows(table string) []remembered {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.all[table])
}
