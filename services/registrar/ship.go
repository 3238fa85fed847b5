package registrar

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/batch"
)

// auditConsumer is the registrar's durable consumer of AUDIT.
const auditConsumer = "registrar"

const (
	shipBatch     = 500
	shipInterval  = time.Second      // how soon the rows of other processes are seen
	storePatience = 10 * time.Second // how long rows are locked while the stream does not answer
	copyLinger    = 50 * time.Millisecond
)

// AuditMessage is an event as a message for AUDIT, for who has NATS at hand and
// not the registry: the registrar copies it to its table.
func AuditMessage(e Event) (*nats.Msg, error) {
	return entry{ID: newEventID(), Event: e}.message()
}

func (e entry) message() (*nats.Msg, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding an audit event: %w", err)
	}
	device := string(e.MAC)
	if device == "" {
		device = "none"
	}
	m := nats.NewMsg("f2.audit." + string(e.Action) + "." + device)
	m.Data = data
	m.Header.Set(nats.MsgIdHdr, e.ID)
	return m, nil
}

// Ship brings the table's rows to the stream and the stream's messages to the
// table, until ctx ends. Several may run at once.
func (t *Trail) Ship(ctx context.Context, streams *stream.Client, log *slog.Logger) error {
	consumer, err := streams.Open(ctx, stream.Audit, auditConsumer)
	if err != nil {
		return err
	}
	messages, release, err := streams.Consume(ctx, consumer, shipBatch, stream.MinPrefetchBytes)
	if err != nil {
		return err
	}
	defer release()
	copied := make(chan struct{})
	go func() { defer close(copied); t.copyIn(ctx, messages, log) }()
	t.sendOut(ctx, streams, log)
	<-copied
	return nil
}

func (t *Trail) sendOut(ctx context.Context, streams *stream.Client, log *slog.Logger) {
	for {
		n, err := t.sendBatch(ctx, streams)
		if err != nil && ctx.Err() == nil {
			log.Warn("audit trail does not reach its stream, the table has it", "error", err)
		}
		if n == shipBatch {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-t.nudged:
		case <-time.After(shipInterval):
		}
	}
}

// sendBatch publishes rows that the stream does not have, and takes them off the
// list when it has. A crash in between publishes them again, under the same id.
func (t *Trail) sendBatch(ctx context.Context, streams *stream.Client) (n int, err error) {
	err = pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error {
		seqs, messages, err := waiting(ctx, tx)
		if err != nil || len(seqs) == 0 {
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, storePatience)
		defer cancel()
		if _, err := streams.Store(bounded, stream.Audit, messages); err != nil {
			return err
		}
		n = len(seqs)
		_, err = tx.Exec(ctx, `DELETE FROM audit_outbox WHERE seq = ANY($1)`, seqs)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("publishing the audit trail: %w", err)
	}
	return n, nil
}

// waiting locks the next rows against other shippers.
func waiting(ctx context.Context, tx pgx.Tx) ([]int64, []*nats.Msg, error) {
	rows, err := tx.Query(ctx, `
SELECT a.seq, a.event_id, a.time, a.actor, a.action, a.mac, a.serial, a.detail, a.address
FROM audit_outbox o JOIN audit a USING (seq) ORDER BY o.seq LIMIT $1 FOR UPDATE OF o SKIP LOCKED`, shipBatch)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	var seqs []int64
	var messages []*nats.Msg
	for rows.Next() {
		var seq int64
		var e entry
		if err := rows.Scan(&seq, &e.ID, &e.Time, &e.Actor, &e.Action, &e.MAC, &e.Serial, &e.Detail, &e.Address); err != nil {
			return nil, nil, err
		}
		e.Time = e.Time.UTC()
		m, err := e.message()
		if err != nil {
			return nil, nil, err
		}
		seqs, messages = append(seqs, seq), append(messages, m)
	}
	return seqs, messages, rows.Err()
}

// copyIn takes messages until the channel is closed. What the table has not taken
// is not acknowledged and comes again.
func (t *Trail) copyIn(ctx context.Context, messages <-chan jetstream.Msg, log *slog.Logger) {
	buf := make([]jetstream.Msg, 0, shipBatch)
	for {
		buf = batch.Gather(ctx, messages, buf[:0], shipBatch, copyLinger)
		if len(buf) == 0 {
			return
		}
		for {
			err := t.copyBatch(ctx, buf, log)
			if err == nil || ctx.Err() != nil {
				break
			}
			log.Warn("audit trail does not reach its table, the stream has it", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(shipInterval):
			}
		}
	}
}

func (t *Trail) copyBatch(ctx context.Context, messages []jetstream.Msg, log *slog.Logger) error {
	entries := make([]entry, 0, len(messages))
	for _, m := range messages {
		var e entry
		if err := json.Unmarshal(m.Data(), &e); err != nil || e.ID == "" {
			log.Warn("a message on the audit trail is not an event, it stays on the stream alone", "subject", m.Subject())
			continue
		}
		entries = append(entries, e)
	}
	if _, err := t.pool.Exec(ctx, insertAudit, columnsOf(entries)...); err != nil {
		return fmt.Errorf("copying the audit trail: %w", err)
	}
	for _, m := range messages {
		if err := m.Ack(); err != nil {
			log.Debug("acknowledging", "error", err) // it comes again, and is known
		}
	}
	return nil
}
