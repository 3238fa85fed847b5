package ledger

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// The keys are looked up in the tables' indexes, a batch a query. The batch's
// span of time lets TimescaleDB leave out chunks.
const (
	// findFaults returns only the rows that are absent or differ, and whether
	// measurement_history has the value for the same moment: the second of two, or
	// one that was replaced. A second one that was decoded once more is replaced there.
	findFaults = `
SELECT n.ordinality - 1, m.time IS NOT NULL, %[1]s
FROM unnest($1::timestamptz[], $2::int4[], $3::int4[], $4::float8[], $5::text[], $6::uuid[]) WITH ORDINALITY AS n (time, device_id, datapoint_id, value, text_value, event_id, ordinality)
LEFT JOIN measurement m ON m.device_id = n.device_id AND m.datapoint_id = n.datapoint_id AND m.time = n.time AND m.time BETWEEN $7 AND $8
WHERE m.time IS NULL OR m.value IS DISTINCT FROM n.value OR m.text_value IS DISTINCT FROM n.text_value`

	// inHistory stands in findFaults.
	inHistory = `EXISTS (SELECT FROM measurement_history h WHERE h.device_id = n.device_id AND h.datapoint_id = n.datapoint_id AND h.time = n.time
  AND (h.value IS NOT DISTINCT FROM n.value AND h.text_value IS NOT DISTINCT FROM n.text_value
    OR h.reason = 'conflict' AND h.event_id = n.event_id))`

	// findEvents returns the rows that are there. Their state is compared here:
	// PostgreSQL would fail the whole query for one that it cannot read.
	findEvents = `
SELECT n.ordinality - 1, e.state::text
FROM unnest($1::timestamptz[], $2::uuid[]) WITH ORDINALITY AS n (time, event_id, ordinality)
JOIN device_event e ON e.event_id = n.event_id AND e.time = n.time AND e.time BETWEEN $3 AND $4`

	// useIndexes keeps the planner from reading whole tables where it has no
	// statistics yet.
	useIndexes = `SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off`
)

// probeTables compares each probe with the tables until the channel is closed.
func (a *audit) probeTables(ctx context.Context, probes <-chan *probe) error {
	tx, err := a.db.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("opening the tables: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, useIndexes, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("preparing the query: %w", err)
	}
	faults, err := a.faultsQuery(ctx, tx)
	if err != nil {
		return err
	}
	for p := range probes {
		rows := &a.report.Rows
		rows.Expected += uint64(p.rows()) //nolint:gosec // a length
		if err := a.probeMeasurements(ctx, tx, faults, p); err != nil {
			return fmt.Errorf("looking up measurements: %w", err)
		}
		if err := a.probeEvents(ctx, tx, p); err != nil {
			return fmt.Errorf("looking up events: %w", err)
		}
	}
	return nil
}

// ids are the messages of the probe's measurements.
func (a *audit) ids(p *probe) []pgtype.UUID {
	ids := make([]pgtype.UUID, len(p.of))
	for i := range ids {
		ids[i] = pgtype.UUID{Bytes: event.PlaceID(a.cut.incarnation, p.of[i].record.sequence), Valid: true}
	}
	return ids
}

// faultsQuery is findFaults for these tables: those of an earlier version have no
// history.
func (a *audit) faultsQuery(ctx context.Context, tx pgx.Tx) (string, error) {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass('measurement_history') IS NOT NULL`).Scan(&exists); err != nil {
		return "", fmt.Errorf("looking for measurement_history: %w", err)
	}
	if exists {
		return fmt.Sprintf(findFaults, inHistory), nil
	}
	return fmt.Sprintf(findFaults, "false"), nil
}

func (a *audit) probeMeasurements(ctx context.Context, tx pgx.Tx, faults string, p *probe) error {
	if len(p.of) == 0 {
		return nil
	}
	first, last := span(p.time)
	found, err := tx.Query(ctx, faults, p.time, p.device, p.point, p.value, p.text, a.ids(p), first, last)
	if err != nil {
		return err
	}
	var i int64
	var differs, kept bool
	_, err = pgx.ForEachRow(found, []any{&i, &differs, &kept}, func() error {
		if kept {
			a.report.Rows.History++
			return nil
		}
		a.fault(p.of[i], RowFault{DeviceID: p.device[i], DataPointID: p.point[i], Time: p.time[i], Differs: differs})
		return nil
	})
	return err
}

func (a *audit) probeEvents(ctx context.Context, tx pgx.Tx, p *probe) error {
	if len(p.eventOf) == 0 {
		return nil
	}
	first, last := span(p.eventTime)
	found, err := tx.Query(ctx, findEvents, p.eventTime, p.eventID, first, last)
	if err != nil {
		return err
	}
	var i int64
	var state []byte
	present := make([]bool, len(p.eventOf))
	_, err = pgx.ForEachRow(found, []any{&i, &state}, func() error {
		present[i] = true
		if !sameJSON(p.state[i], state) {
			a.changedEvents = append(a.changedEvents, changedEvent{p.eventOf[i], RowFault{Time: p.eventTime[i], Differs: true}})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, ok := range present {
		if !ok {
			a.fault(p.eventOf[i], RowFault{Time: p.eventTime[i]})
		}
	}
	return nil
}

// fault books a row that is absent or differs, and why that may be.
func (a *audit) fault(of origin, f RowFault) {
	r, rows := of.record, &a.report.Rows
	_, refused := a.book.parts[part{r.sequence, f.DataPointID}]
	switch {
	case refused || r.flags&(refusedByWriter|refusedByDecoder) != 0: // what was replayed may have a letter still
		r.refused++
		rows.Refused++
		return
	case of.pending:
		r.rows |= rowPending
		rows.Pending++
		return
	case r.rows&rowLetter != 0 || a.explain(stream.StageWriter, r):
		r.rows |= rowLetter
		rows.NotKept++
		return
	case f.Differs:
		r.rows |= rowDiffers
		rows.Differing++
	default:
		r.rows |= rowAbsent
		rows.Absent++
	}
	if len(a.report.Faults) < a.options.MaxListed {
		f.ID = event.PlaceID(a.cut.incarnation, r.sequence)
		a.report.Faults = append(a.report.Faults, f)
	}
}

// span is the least and the greatest time, as exact as the tables are.
func span(times []time.Time) (first, last time.Time) {
	first, last = slices.MinFunc(times, time.Time.Compare), slices.MaxFunc(times, time.Time.Compare)
	return first, last
}

// sameJSON compares values, not their spelling. What Go cannot read exactly,
// such as a number beyond float64, is taken as the same: the row's key is a hash
// of the payload.
func sameJSON(x, y jsontext.Value) bool {
	x, y = bytes.Clone(x), bytes.Clone(y)
	if x.Canonicalize() != nil || y.Canonicalize() != nil {
		return true
	}
	return bytes.Equal(x, y)
}
