// Package rows reads the tables of readings and events to compare them with what
// messages decode to. It writes nothing.
package rows

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
)

// Querier is a connection or pool on the tables, of a role that may SELECT from them:
// *pgx.Conn and *pgxpool.Pool are.
type Querier interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// useIndexes keeps the planner from reading whole tables where it has no statistics yet.
const useIndexes = `SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off`

// Read runs queries in a read-only transaction that looks rows up in the indexes.
func Read(ctx context.Context, db Querier, queries func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, db, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, useIndexes, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		return queries(tx)
	})
}

// HasHistory reports whether the tables keep values that are replaced. Those of an earlier
// version do not.
func HasHistory(ctx context.Context, tx pgx.Tx) (exists bool, err error) {
	if err = tx.QueryRow(ctx, `SELECT to_regclass('measurement_history') IS NOT NULL`).Scan(&exists); err != nil {
		err = fmt.Errorf("looking for measurement_history: %w", err)
	}
	return exists, err
}

// UUID is an ID as a query takes it.
func UUID(id event.ID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }

// Bounds returns the first and the last of some times. With both, a query lets TimescaleDB
// leave out chunks.
func Bounds(times []time.Time) (first, last time.Time) {
	return slices.MinFunc(times, time.Time.Compare), slices.MaxFunc(times, time.Time.Compare)
}

// Events are those that messages decode to, as columns of one length.
type Events struct {
	Time  []time.Time
	ID    []pgtype.UUID
	State []jsontext.Value
}

// Add appends an event, which it does not copy.
func (e *Events) Add(d *event.Decoded) {
	e.Time, e.ID, e.State = append(e.Time, d.Time), append(e.ID, UUID(d.ID)), append(e.State, d.State)
}

// findEvents returns the rows that are there. Their state is compared here: PostgreSQL
// would fail the whole query for one that it cannot read.
const findEvents = `
SELECT n.ordinality - 1, e.state::text
FROM unnest($1::timestamptz[], $2::uuid[]) WITH ORDINALITY AS n (time, event_id, ordinality)
JOIN device_event e ON e.event_id = n.event_id AND e.time = n.time AND e.time BETWEEN $3 AND $4`

// Compare returns the indexes of the events that have no row, and of those whose row has
// another state.
func (e *Events) Compare(ctx context.Context, tx pgx.Tx) (absent, changed []int, err error) {
	if len(e.Time) == 0 {
		return nil, nil, nil
	}
	first, last := Bounds(e.Time)
	found, err := tx.Query(ctx, findEvents, e.Time, e.ID, first, last)
	if err != nil {
		return nil, nil, err
	}
	var i int
	var state []byte
	present := make([]bool, len(e.Time))
	_, err = pgx.ForEachRow(found, []any{&i, &state}, func() error {
		present[i] = true
		if !sameJSON(e.State[i], state) {
			changed = append(changed, i)
		}
		return nil
	})
	for i, ok := range present {
		if !ok {
			absent = append(absent, i)
		}
	}
	return absent, changed, err
}

// sameJSON compares values, not their spelling. What Go cannot read exactly, such as a
// number beyond float64, is taken as the same: the row's key is a hash of the payload.
func sameJSON(x, y jsontext.Value) bool {
	x, y = bytes.Clone(x), bytes.Clone(y)
	if x.Canonicalize() != nil || y.Canonicalize() != nil {
		return true
	}
	return bytes.Equal(x, y)
}
