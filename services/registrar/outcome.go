package registrar

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/batch"
)

// CommandAction is the action of a command to a controller, with its outcome.
const CommandAction Action = "command"

// resultConsumer is the registrar's durable consumer of RESULT.
const resultConsumer = "registrar"

// RecordOutcomes adds the outcome of each command to the trail, until ctx ends.
// Several may run at once.
func (t *Trail) RecordOutcomes(ctx context.Context, streams *stream.Client, log *slog.Logger) error {
	consumer, err := streams.Open(ctx, stream.Result, resultConsumer)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	messages, release, err := streams.Consume(ctx, consumer, shipBatch, stream.MinPrefetchBytes)
	if err != nil {
		return err
	}
	defer release()
	buf := make([]jetstream.Msg, 0, shipBatch)
	for {
		buf = batch.Gather(ctx, messages, buf[:0], shipBatch, copyLinger)
		if len(buf) == 0 {
			break
		}
		for {
			err := t.recordOutcomes(ctx, buf, log)
			if err == nil || ctx.Err() != nil {
				break
			}
			log.Warn("outcomes of commands do not reach the audit trail, the stream has them", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(shipInterval):
			}
		}
	}
	if ctx.Err() == nil {
		return fmt.Errorf("reading %s: %w", stream.Result, stream.ErrConsumerGone)
	}
	return nil
}

func (t *Trail) recordOutcomes(ctx context.Context, messages []jetstream.Msg, log *slog.Logger) error {
	var entries []entry
	for _, m := range messages {
		r, err := outcome.Parse(m.Headers(), m.Data())
		if err != nil {
			log.Warn("a message is not the result of a command, it stays on the stream alone", "subject", m.Subject(), "error", err)
			continue
		}
		if r.Outcome == outcome.Sent {
			continue // not an outcome yet
		}
		e, err := outcomeEntry(m, &r)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	err := pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error { return addEntries(ctx, tx, entries) })
	if err != nil {
		return fmt.Errorf("recording in the audit trail: %w", err)
	}
	t.nudge()
	for _, m := range messages {
		if err := m.Ack(); err != nil {
			log.Debug("acknowledging", "error", err) // it comes again, and is known
		}
	}
	return nil
}

// outcomeEntry is a result as an entry. Its id comes from the message's place and
// time, so that a message that comes again is one entry.
func outcomeEntry(m jetstream.Msg, r *outcome.Result) (entry, error) {
	meta, err := m.Metadata()
	if err != nil {
		return entry{}, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%d", meta.Stream, meta.Sequence.Stream, meta.Timestamp.UnixNano()))
	e := entry{ID: hex.EncodeToString(sum[:16]), Event: Event{
		Time: r.At, Actor: cmp.Or(r.Person, "bridge"), Action: CommandAction, Detail: "command " + strconv.FormatUint(r.Sequence, 10) + ": " + string(r.Outcome),
	}}
	if place, err := topic.ParseSubject(r.Command); err == nil {
		e.MAC = place.MAC
		e.Detail = fmt.Sprintf("%s of connector %d in %s: %s", place.Component, place.Connector, place.Mode, r.Outcome)
	}
	if r.ID != "" {
		e.Detail += fmt.Sprintf(", id %q", r.ID)
	}
	if r.Detail != "" {
		e.Detail += ": " + r.Detail
	}
	return e, nil
}
