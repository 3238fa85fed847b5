package registrar

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// RotateSecret is the action of who gave a service another password.
const RotateSecret Action = "rotate_secret"

// entry is an Event as it is on the stream AUDIT. The id is the same in the table,
// so that neither holds an event twice.
type entry struct {
	ID string `json:"id"`
	Event
}

// Trail is the audit trail: the table audit of the registry first, then the stream
// AUDIT. A row is there whether NATS is or not; Ship brings it to the stream. It
// is safe for concurrent use.
type Trail struct {
	pool   *pgxpool.Pool
	nudged chan struct{} // tells Ship of new rows
}

// NewTrail returns the trail in the registry's database.
func NewTrail(pool *pgxpool.Pool) *Trail {
	return &Trail{pool: pool, nudged: make(chan struct{}, 1)}
}

// Record adds the events, all or none.
func (t *Trail) Record(ctx context.Context, events ...Event) error {
	err := pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error { return addEvents(ctx, tx, events) })
	if err != nil {
		return fmt.Errorf("recording in the audit trail: %w", err)
	}
	t.nudge()
	return nil
}

// nudge tells Ship of new rows.
func (t *Trail) nudge() {
	select {
	case t.nudged <- struct{}{}:
	default:
	}
}

// newEventID is unguessable, so that nobody keeps another's event out of the table
// by taking its id.
func newEventID() string { return rand.Text() }

// querier is a pool, a connection or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// addEvents adds the events and notes that the stream does not have them yet.
// Within the transaction of an operation it makes the trail as sure as the
// operation itself.
func addEvents(ctx context.Context, q querier, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	entries := make([]entry, len(events))
	for i, e := range events {
		entries[i] = entry{ID: newEventID(), Event: e}
	}
	return addEntries(ctx, q, entries)
}

// addEntries is addEvents of events that have ids; those that are known are not added
// again.
func addEntries(ctx context.Context, q querier, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	c := columnsOf(entries)
	_, err := q.Exec(ctx, `
WITH added AS (`+insertAudit+` RETURNING seq)
INSERT INTO audit_outbox (seq) SELECT seq FROM added`, c...)
	return err
}

const insertAudit = `
INSERT INTO audit (event_id, time, actor, action, mac, serial, detail, address)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
ON CONFLICT (event_id) DO NOTHING`

// columnsOf are the arguments of insertAudit.
func columnsOf(entries []entry) []any {
	n := len(entries)
	id, at, actor, action := make([]string, n), make([]time.Time, n), make([]string, n), make([]string, n)
	mac, serial, detail, address := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, e := range entries {
		id[i], at[i], actor[i], action[i] = text(e.ID), e.Time, text(e.Actor), text(string(e.Action))
		mac[i], serial[i], detail[i], address[i] = text(string(e.MAC)), text(e.Serial), text(e.Detail), text(e.Address)
	}
	return []any{id, at, actor, action, mac, serial, detail, address}
}

// text is s as PostgreSQL takes it: one event that it refuses would hold up all
// behind it.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// Since answers the events from a time on, of one controller or with "" of all, in
// the order in which they were recorded, the latest limit of them.
func (t *Trail) Since(ctx context.Context, since time.Time, mac string, limit int) ([]Event, error) {
	rows, err := t.pool.Query(ctx, `
SELECT time, actor, action, mac, serial, detail, address FROM (
    SELECT * FROM audit WHERE time >= $1 AND ($2 = '' OR mac = $2) ORDER BY seq DESC LIMIT $3
) latest ORDER BY seq`, since, mac, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the audit trail: %w", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Event])
	if err != nil {
		return nil, fmt.Errorf("reading the audit trail: %w", err)
	}
	return events, nil
}
