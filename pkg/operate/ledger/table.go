package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/operate/rows"
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
)

// probeTables compares each probe with the tables until the channel is closed.
func (a *audit) probeTables(ctx context.Context, probes <-chan *probe) error {
	return rows.Read(ctx, a.db, func(tx pgx.Tx) error {
		faults := fmt.Sprintf(findFaults, inHistory)
		if history, err := rows.HasHistory(ctx, tx); err != nil {
			return err
		} else if !history {
			faults = fmt.Sprintf(findFaults, "false")
		}
		for p := range probes {
			a.report.Rows.Expected += uint64(p.rows()) //nolint:gosec // a length
			if err := a.probeMeasurements(ctx, tx, faults, p); err != nil {
				return fmt.Errorf("looking up measurements: %w", err)
			}
			if err := a.probeEvents(ctx, tx, p); err != nil {
				return fmt.Errorf("looking up events: %w", err)
			}
		}
		return nil
	})
}

func (a *audit) probeMeasurements(ctx context.Context, tx pgx.Tx, faults string, p *probe) error {
	if len(p.of) == 0 {
		return nil
	}
	first, last := rows.Bounds(p.time)
	found, err := tx.Query(ctx, faults, p.time, p.device, p.point, p.value, p.text, p.id, first, last)
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
	absent, changed, err := p.events.Compare(ctx, tx)
	for _, i := range changed {
		a.changedEvents = append(a.changedEvents, changedEvent{p.eventOf[i], RowFault{Time: p.events.Time[i], Differs: true}})
	}
	for _, i := range absent {
		a.fault(p.eventOf[i], RowFault{Time: p.events.Time[i]})
	}
	return err
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
