package replay

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/operate/rows"
)

// Tables compares what messages decode to with the rows that the tables have.
type Tables struct {
	db      rows.Querier
	history bool
	points  map[int32][]int32 // by device: those that have rows
}

// NewTables looks which tables there are.
func NewTables(ctx context.Context, db rows.Querier) (*Tables, error) {
	t := &Tables{db: db, points: make(map[int32][]int32)}
	err := rows.Read(ctx, db, func(tx pgx.Tx) (err error) {
		t.history, err = rows.HasHistory(ctx, tx)
		return err
	})
	return t, err
}

// HasHistory reports whether the tables keep values that are replaced.
func (t *Tables) HasHistory() bool { return t.history }

// Comparison is how a value compares with the tables.
type Comparison uint8

// The kinds.
const (
	Same    Comparison = iota
	Changed            // the row has another value
	New                // there is no row
	Gone               // there is a row of the message, and it no longer decodes to a value for it
	Second             // another message came first with a value for the moment: this one's is in the history
)

// change is how one value compares. Before and After are empty for events, whose
// states may be personal.
type change struct {
	kind          Comparison
	device, point int32 // 0: an event
	label         string
	time          time.Time
	before, after string
}

const (
	findRows = `
SELECT n.ordinality - 1, m.value, m.text_value, m.received, %s
FROM unnest($1::timestamptz[], $2::int4[], $3::int4[], $4::uuid[]) WITH ORDINALITY AS n (time, device_id, datapoint_id, event_id, ordinality)
JOIN measurement m ON m.device_id = n.device_id AND m.datapoint_id = n.datapoint_id AND m.time = n.time AND m.time BETWEEN $5 AND $6`

	cameSecond = `EXISTS (SELECT FROM measurement_history h WHERE h.device_id = n.device_id AND h.datapoint_id = n.datapoint_id AND h.time = n.time
  AND h.reason = 'conflict' AND h.event_id = n.event_id)`

	// findPoints goes from one data point to the next in the index.
	findPoints = `
WITH RECURSIVE p AS (
  (SELECT datapoint_id FROM measurement WHERE device_id = $1 ORDER BY datapoint_id LIMIT 1)
  UNION ALL
  SELECT (SELECT datapoint_id FROM measurement WHERE device_id = $1 AND datapoint_id > p.datapoint_id ORDER BY datapoint_id LIMIT 1)
  FROM p WHERE p.datapoint_id IS NOT NULL)
SELECT datapoint_id FROM p WHERE datapoint_id IS NOT NULL`
)

// wanted are the rows that messages may have, as the columns that findRows takes.
type wanted struct {
	time          []time.Time
	device, point []int32
	id            []pgtype.UUID
	value         []*event.DataPoint // nil: the message has none for the point
	of            []int              // index of the message
}

// compare returns what changes for each message.
func (t *Tables) compare(ctx context.Context, messages []*event.Decoded) (changes [][]change, err error) {
	changes = make([][]change, len(messages))
	err = rows.Read(ctx, t.db, func(tx pgx.Tx) error {
		if err := t.compareValues(ctx, tx, messages, changes); err != nil {
			return err
		}
		return compareEvents(ctx, tx, messages, changes)
	})
	if err != nil {
		return nil, fmt.Errorf("comparing with the tables: %w", err)
	}
	return changes, nil
}

func (t *Tables) compareValues(ctx context.Context, tx pgx.Tx, messages []*event.Decoded, changes [][]change) error {
	w, err := t.want(ctx, tx, messages)
	if err != nil || len(w.of) == 0 {
		return err
	}
	query := fmt.Sprintf(findRows, "false")
	if t.history {
		query = fmt.Sprintf(findRows, cameSecond)
	}
	first, last := rows.Bounds(w.time)
	found, err := tx.Query(ctx, query, w.time, w.device, w.point, w.id, first, last)
	if err != nil {
		return err
	}
	present := make([]bool, len(w.of))
	var i int64
	var number *float64
	var text *string
	var received time.Time
	var second bool
	_, err = pgx.ForEachRow(found, []any{&i, &number, &text, &received, &second}, func() error {
		present[i] = true
		d := messages[w.of[i]]
		c := change{device: w.device[i], point: w.point[i], time: w.time[i], before: format(number, text)}
		switch v := w.value[i]; {
		case v == nil && !received.Equal(d.Received.Truncate(time.Microsecond)):
			return nil // another message's
		case v == nil:
			c.kind = Gone
		default:
			c.label, c.after = v.Label, format(&v.Number, v.Text)
			switch {
			case c.before == c.after:
				c.kind = Same
			case second:
				c.kind = Second
			default:
				c.kind = Changed
			}
		}
		changes[w.of[i]] = append(changes[w.of[i]], c)
		return nil
	})
	for i, ok := range present {
		if v := w.value[i]; !ok && v != nil {
			changes[w.of[i]] = append(changes[w.of[i]], change{
				kind: New, device: w.device[i], point: w.point[i], label: v.Label, time: w.time[i], after: format(&v.Number, v.Text),
			})
		}
	}
	return err
}

// want lists the rows of the messages' values, and of the other data points that
// their devices have rows of.
func (t *Tables) want(ctx context.Context, tx pgx.Tx, messages []*event.Decoded) (*wanted, error) {
	w := new(wanted)
	for i, d := range messages {
		if len(d.Values) == 0 {
			continue
		}
		known, err := t.knownPoints(ctx, tx, d.DeviceID)
		if err != nil {
			return nil, err
		}
		add := func(point int32, v *event.DataPoint) {
			w.time, w.device, w.point = append(w.time, d.Time), append(w.device, d.DeviceID), append(w.point, point)
			w.id = append(w.id, rows.UUID(d.ID))
			w.value, w.of = append(w.value, v), append(w.of, i)
		}
		for j := range d.Values {
			add(d.Values[j].DataPointID, &d.Values[j])
		}
		for _, point := range known {
			if !slices.ContainsFunc(d.Values, func(v event.DataPoint) bool { return v.DataPointID == point }) {
				add(point, nil)
			}
		}
	}
	return w, nil
}

// knownPoints are the data points that the device has rows of.
func (t *Tables) knownPoints(ctx context.Context, tx pgx.Tx, device int32) ([]int32, error) {
	if points, ok := t.points[device]; ok {
		return points, nil
	}
	found, err := tx.Query(ctx, findPoints, device)
	if err != nil {
		return nil, err
	}
	points, err := pgx.CollectRows(found, pgx.RowTo[int32])
	if err == nil {
		t.points[device] = points
	}
	return points, err
}

func compareEvents(ctx context.Context, tx pgx.Tx, messages []*event.Decoded, changes [][]change) error {
	var events rows.Events
	var of []int
	for i, d := range messages {
		if d.State != nil {
			events.Add(d)
			of = append(of, i)
		}
	}
	absent, changed, err := events.Compare(ctx, tx)
	kinds := make([]Comparison, len(of)) // Same
	for _, i := range absent {
		kinds[i] = New
	}
	for _, i := range changed {
		kinds[i] = Changed
	}
	for i, kind := range kinds {
		changes[of[i]] = append(changes[of[i]], change{kind: kind, label: messages[of[i]].Component, time: events.Time[i]})
	}
	return err
}

// format is a value for people, and exact.
func format(number *float64, text *string) string {
	switch {
	case text != nil:
		return strconv.Quote(*text)
	case number != nil:
		return strconv.FormatFloat(*number, 'g', -1, 64)
	}
	return ""
}
