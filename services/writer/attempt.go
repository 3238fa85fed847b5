package writer

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// historyError is an error after the rows were committed, while a second value for the same
// time was stored in the history.
type historyError struct{ error }

// Unwrap returns the cause.
func (e historyError) Unwrap() error { return e.error }

// job is the rows of one transaction.
type job struct {
	fresh, replacing rows
	bytes            int // of the messages
}

// parse returns the job of messages, which were parsed before.
func parse(messages []jetstream.Msg) (*job, error) {
	var j job
	var d event.Decoded
	for _, m := range messages {
		if err := event.ParseDecoded(m.Subject(), m.Data(), &d); err != nil {
			return nil, fmt.Errorf("parsing a message again: %w", err)
		}
		j.add(m, &d)
	}
	return &j, nil
}

func (j *job) add(m jetstream.Msg, d *event.Decoded) {
	j.bytes += size(m)
	if replaces(m) {
		j.replacing.add(d)
	} else {
		j.fresh.add(d)
	}
}

func (j *job) rows() int { return j.fresh.len() + j.replacing.len() }

// The time that an attempt may take: that of slow disks, with a margin. The first attempt
// for a batch may take longer than those for its parts, which delay other messages. Messages
// that need more time get it where no others wait for them, see apart.
const (
	firstPatience = 500 * time.Millisecond
	partPatience  = 300 * time.Millisecond
	rowPatience   = 2 * time.Millisecond
	bytePatience  = time.Microsecond
)

// patience returns how long an attempt may take.
func (w *Writer) patience(j *job, least time.Duration) time.Duration {
	return least + time.Duration(j.rows())*rowPatience + time.Duration(j.bytes)*bytePatience + commitMargin*time.Duration(w.commitTime.Load())
}

const (
	commitMargin  = 4
	longestCommit = 30 * time.Second
)

// slowCommits reports whether an attempt took too long because every COMMIT is slow, for
// example because of a synchronous replica. If so, the next attempts get more time.
func (w *Writer) slowCommits(ctx context.Context, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, longestCommit)
	defer cancel()
	started := time.Now()
	// This writes to the write-ahead log only. A role without the right for it does not get
	// more time.
	if _, err := w.pool.Exec(ctx, `SELECT pg_logical_emit_message(true, 'f2mesh', '')`); outcomeOf(err) == refused {
		return false
	}
	took := time.Since(started)
	if took < timeout/commitMargin || took.Nanoseconds() <= w.commitTime.Load() {
		return false
	}
	w.commitTime.Store(took.Nanoseconds())
	w.log.Warn("commits are slow", "took", took.Round(time.Millisecond).String())
	return true
}

// attempt writes a job once, in one transaction.
func (w *Writer) attempt(ctx context.Context, j *job, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	started := time.Now()
	inserted, err := w.insert(bounded, j)
	if err != nil {
		return err
	}
	if took := time.Since(started).Nanoseconds(); took < w.commitTime.Load() {
		w.commitTime.Store(took)
	}
	w.metrics.written.Add(float64(inserted))
	known := int64(j.rows()) - inserted
	if known > 0 {
		kept, err := w.keepConflicts(bounded, &j.fresh)
		if err != nil {
			return historyError{err}
		}
		known -= kept
	}
	w.metrics.duplicates.Add(float64(known))
	return nil
}

// insert returns the number of new rows.
func (w *Writer) insert(ctx context.Context, j *job) (inserted int64, err error) {
	var b pgx.Batch
	j.fresh.insert(&b)
	j.replacing.insert(&b)
	inserts := b.Len()
	j.replacing.replace(&b)
	if b.Len() == 0 {
		return 0, nil
	}
	results := w.pool.SendBatch(ctx, &b)
	var replaced int64
	for i := range b.Len() {
		tag, err := results.Exec()
		if err != nil {
			_ = results.Close()
			return 0, err
		}
		if i < inserts {
			inserted += tag.RowsAffected()
		} else {
			replaced += tag.RowsAffected()
		}
	}
	if err := results.Close(); err != nil {
		return 0, err
	}
	w.metrics.replaced.Add(float64(replaced))
	return inserted, nil
}

// keepConflicts stores values in the history if the table has another value for the same
// time. An existing row with the same value is a redelivery; with another value, two readings
// have the same time, and the second one must not get lost. It runs after the rows are
// committed, so that a batch without conflicts does not pay for it. If it fails, the messages
// are not acknowledged and come again.
func (w *Writer) keepConflicts(ctx context.Context, r *rows) (int64, error) {
	if len(r.time) == 0 {
		return 0, nil
	}
	tag, err := w.pool.Exec(ctx, keepConflicts, r.time, r.received, r.id, r.device, r.point, r.value, r.text)
	if err != nil {
		return 0, err
	}
	w.metrics.conflicts.Add(float64(tag.RowsAffected()))
	return tag.RowsAffected(), nil
}
