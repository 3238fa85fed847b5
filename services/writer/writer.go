// Package writer writes DECODED messages to TimescaleDB, or plain PostgreSQL,
// in batches, and acknowledges them after COMMIT (design 5.2). The tables'
// natural keys make it idempotent: what is delivered twice is written once. A
// batch that PostgreSQL refuses for its rows' sake is halved until the refused
// messages are alone; those become dead letters. Outages are waited out.
package writer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/batch"
	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/postgres"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// DecodedStream is the stream that the writer reads.
const DecodedStream = "DECODED"

// stage is the writer's name in subjects and dead letters.
const stage = "writer"

// Writer is one writer; run it once.
type Writer struct {
	cfg        Config
	credential secret.Credential
	streams    *stream.Client
	log        *slog.Logger
	metrics    *metrics
	pool       *pgxpool.Pool
	prepared   atomic.Bool // pool and tables are there
}

// New returns a writer. credential is the table owner's, and is followed where it
// changes; the writer's metrics are in reg.
func New(cfg Config, credential secret.Credential, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("writer: %w", err)
	}
	return &Writer{cfg: cfg, credential: credential, streams: streams, metrics: newMetrics(reg), log: log}, nil
}

// Run migrates the tables and writes until ctx ends, then writes what it has in
// hand.
func (w *Writer) Run(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	defer w.pool.Close()
	w.prepared.Store(true)
	if err := w.streams.Wait(ctx, deadletter.Stream); err != nil {
		return err
	}
	consumer, err := w.streams.Open(ctx, DecodedStream, stage)
	if err != nil {
		return err
	}
	if err := w.streams.Rewind(ctx, consumer); err != nil {
		return err
	}
	messages, err := w.streams.Consume(ctx, consumer, 2*w.cfg.Batch)
	if err != nil {
		return err
	}
	return w.process(ctx, messages)
}

// open prepares the tables, past any pooler, and opens the pool that they are
// written through.
func (w *Writer) open(ctx context.Context) error {
	direct, err := database.Open(ctx, w.cfg.DSN, w.credential)
	if err != nil {
		return fmt.Errorf("writer: timescale-dsn: %w", err)
	}
	err = w.prepareTables(ctx, direct.Pool)
	direct.Close()
	if err != nil {
		return err
	}
	pool, err := database.OpenPooled(ctx, w.cfg.DSN, w.cfg.PooledDSN, w.credential)
	if err != nil {
		return fmt.Errorf("writer: timescale-pooled-dsn: %w", err)
	}
	w.pool = pool.Pool
	return nil
}

// Ready proves that JetStream and the tables answer.
func (w *Writer) Ready(ctx context.Context) error {
	if !w.prepared.Load() {
		return errors.New("preparing the tables")
	}
	if _, err := w.pool.Exec(ctx, "SELECT FROM measurement LIMIT 0"); err != nil {
		return fmt.Errorf("asking the tables: %w", err)
	}
	return w.streams.Ready(ctx, DecodedStream)
}

// process takes batches until messages is closed, which it is soon after ctx
// ends, or with the consumer.
func (w *Writer) process(ctx context.Context, messages <-chan jetstream.Msg) error {
	draining, cancel := stream.DrainContext(ctx, w.cfg.DrainTimeout)
	defer cancel()
	buf := make([]jetstream.Msg, 0, w.cfg.Batch)
	for {
		buf = batch.Gather(draining, messages, buf[:0], w.cfg.Batch, w.cfg.Linger)
		if len(buf) == 0 {
			if ctx.Err() == nil {
				return fmt.Errorf("reading %s: %w", DecodedStream, stream.ErrConsumerGone)
			}
			return nil
		}
		if err := w.write(draining, buf); err != nil {
			if ctx.Err() != nil {
				w.log.Warn("stopped before everything was written; DECODED keeps it", "messages", len(buf), "error", err)
				return nil
			}
			return err
		}
		clear(buf)
	}
}

// write returns when every message is committed or dead-lettered, and
// acknowledged.
func (w *Writer) write(ctx context.Context, messages []jetstream.Msg) error {
	var r rows
	var dead []*nats.Msg
	var d event.Decoded
	for _, m := range messages {
		if err := event.ParseDecoded(m.Data(), &d); err != nil {
			l := letter(m, "bad_decoded", "not a DECODED message: "+err.Error())
			dead = append(dead, l.Msg())
			w.metrics.deadLetters.WithLabelValues(l.Reason).Inc()
			continue
		}
		r.add(m, &d)
	}
	letters, err := w.commit(ctx, &r)
	if err != nil {
		return err
	}
	for i := range letters {
		dead = append(dead, letters[i].Msg())
		w.metrics.deadLetters.WithLabelValues(letters[i].Reason).Inc()
	}
	if _, err := w.streams.Store(ctx, deadletter.Stream, dead); err != nil {
		return err
	}
	if err := w.streams.Acknowledge(ctx, messages...); err != nil {
		w.log.Debug("messages will come again, as duplicates", "error", err)
	}
	w.metrics.received.Add(float64(len(messages)))
	return nil
}

// commit writes the rows in one transaction, halving the batch where rows are
// refused. It answers the letters of the refused messages.
func (w *Writer) commit(ctx context.Context, r *rows) ([]deadletter.Letter, error) {
	if len(r.messages) == 0 {
		return nil, nil
	}
	inserted, err := w.insert(ctx, r)
	if sqlState, refused := rowsFault(err); refused {
		if len(r.messages) == 1 {
			l := letter(r.messages[0], "refused_by_database", "PostgreSQL refuses the row: SQLSTATE "+sqlState)
			l.SQLState = sqlState
			return []deadletter.Letter{l}, nil
		}
		return w.halve(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	total := int64(len(r.time) + len(r.eventID))
	w.metrics.written.Add(float64(inserted))
	w.metrics.duplicates.Add(float64(total - inserted))
	if total == inserted {
		return nil, nil
	}
	return w.conflicts(ctx, r)
}

func (w *Writer) halve(ctx context.Context, r *rows) ([]deadletter.Letter, error) {
	middle := len(r.messages) / 2
	var letters []deadletter.Letter
	for _, half := range [][]jetstream.Msg{r.messages[:middle], r.messages[middle:]} {
		var part rows
		var d event.Decoded
		for _, m := range half {
			if err := event.ParseDecoded(m.Data(), &d); err != nil {
				return nil, fmt.Errorf("parsing a message again: %w", err)
			}
			part.add(m, &d)
		}
		refused, err := w.commit(ctx, &part)
		if err != nil {
			return nil, err
		}
		letters = append(letters, refused...)
	}
	return letters, nil
}

// insert answers the number of rows that were new. It retries until PostgreSQL
// answers, unless the rows are at fault or ctx ends.
func (w *Writer) insert(ctx context.Context, r *rows) (int64, error) {
	return retry(ctx, w, func(ctx context.Context) (int64, error) {
		var b pgx.Batch
		r.queue(&b)
		results := w.pool.SendBatch(ctx, &b)
		var inserted int64
		for range b.Len() {
			tag, err := results.Exec()
			if err != nil {
				_ = results.Close()
				return 0, err
			}
			inserted += tag.RowsAffected()
		}
		return inserted, results.Close()
	})
}

// conflicts answers a letter for each row that the table holds with another
// value.
func (w *Writer) conflicts(ctx context.Context, r *rows) ([]deadletter.Letter, error) {
	found, err := retry(ctx, w, func(ctx context.Context) ([]int64, error) {
		result, err := w.pool.Query(ctx, findConflicts, r.time, r.device, r.point, r.value, r.text)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(result, pgx.RowTo[int64])
	})
	if err != nil {
		return nil, err
	}
	letters := make([]deadletter.Letter, 0, len(found))
	for _, i := range found {
		l := letter(r.messages[r.measurementOf[i]], "conflicting_value",
			fmt.Sprintf("data point %d of device %d has another value at %s", r.point[i], r.device[i], r.time[i].Time.UTC().Format(time.RFC3339Nano)))
		l.DataPointID = r.point[i]
		letters = append(letters, l)
	}
	return letters, nil
}

// refusedWait is how long a refused login waits for another attempt.
const refusedWait = 250 * time.Millisecond

// retry repeats what is not the rows' fault, with backoff.
func retry[T any](ctx context.Context, w *Writer, operation func(context.Context) (T, error)) (T, error) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 100*time.Millisecond, 5*time.Second
	return backoff.Retry(ctx, func() (T, error) {
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		v, err := operation(bounded)
		if _, refused := rowsFault(err); refused {
			return v, backoff.Permanent(err)
		}
		if postgres.Refused(err) {
			wait.InitialInterval = refusedWait // the credential is being looked up
			wait.Reset()
		}
		return v, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, next time.Duration) {
		w.metrics.retries.Inc()
		w.log.Warn("database does not write, will retry", "error", err, "retry_in", next.Round(time.Millisecond).String())
	}))
}
