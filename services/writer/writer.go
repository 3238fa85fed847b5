// Package writer writes DECODED messages to TimescaleDB, or plain PostgreSQL,
// in batches, and acknowledges them after COMMIT (design 5.2). The tables'
// natural keys make it idempotent: what is delivered twice is written once.
//
// When PostgreSQL refuses rows, the writer probes the tables. If they accept a copy of a row
// that they accepted before, the batch is at fault: it is halved until the refused messages
// are found, and those become dead letters. If not, or if the rows of several controllers are
// refused for one reason, everything waits and an alarm is raised (design 5.6).
package writer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/batch"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// stage is the writer's name in subjects and dead letters.
const stage = stream.StageWriter

// few is how many messages are not worth waiting for: a transaction for each costs too much
// only if there are more of them.
const few = 2

// Writer is one writer; run it once.
type Writer struct {
	cfg        Config
	credential secret.Login
	streams    *stream.Client
	log        *slog.Logger
	metrics    *metrics
	alarms     *alarm.Board
	pool       *pgxpool.Pool

	limit    int // current maximum of messages in a transaction
	together together
	taken    taken
	apart    *apart
	waiting  *waiting

	apartPatience time.Duration // tests shorten it
	commitTime    atomic.Int64  // of a slow COMMIT, in nanoseconds; 0: commits are not slow

	letters *deadletter.Recorder

	consumer atomic.Pointer[jetstream.Consumer] // nil before the tables are prepared
	settled  atomic.Uint64                      // messages
	progress progress
}

// New returns a writer. credential is the table owner's; the writer connects again when it
// changes. It registers its metrics in reg.
func New(cfg Config, credential secret.Login, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("writer: %w", err)
	}
	m := newMetrics(reg)
	w := &Writer{
		cfg: cfg, credential: credential, streams: streams, metrics: m, log: log,
		limit: cfg.Batch, taken: taken{all: map[string][]remembered{}}, apartPatience: apartPatience,
	}
	publish := func(one alarm.Alarm) error { return alarm.Publish(streams.JetStream().Conn(), one) }
	w.alarms = alarm.NewBoard(stage, []string{DatabaseRefuses}, publish, m.alarms, log)
	w.waiting = newWaiting(w.alarms, "tables")
	w.apart = newApart(w)
	w.letters = deadletter.NewRecorder(streams)
	return w, nil
}

// Alarms lists the raised alarms of this service.
func (w *Writer) Alarms() alarm.Listing { return w.alarms.Raised() }

// Run migrates the tables and writes until ctx ends, then writes the messages that it has.
func (w *Writer) Run(ctx context.Context) error {
	var resending sync.WaitGroup
	defer resending.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resending.Go(func() { w.resend(ctx) })
	if err := w.open(ctx); err != nil {
		return err
	}
	defer w.pool.Close()
	if err := w.streams.Wait(ctx, stream.DeadLetter); err != nil {
		return err
	}
	consumer, err := w.streams.Open(ctx, stream.Decoded, stage)
	if err != nil {
		return err
	}
	messages, release, err := w.streams.ConsumeRewinding(ctx, consumer, 2*w.cfg.Batch, maxBatchBytes)
	if err != nil {
		return err
	}
	defer release()
	w.reads(consumer)
	return w.process(ctx, messages)
}

// resend publishes alarms again that could not be published.
func (w *Writer) resend(ctx context.Context) {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.alarms.Resend()
		}
	}
}

// open prepares the tables on a direct connection, and opens the pool for writing.
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

// process writes batches until messages is closed: soon after ctx ends, or when the consumer
// is deleted.
func (w *Writer) process(ctx context.Context, messages <-chan jetstream.Msg) error {
	draining, cancel := stream.DrainContext(ctx, w.cfg.DrainTimeout)
	defer cancel()
	var slow sync.WaitGroup
	defer slow.Wait()
	patiently, impatient := context.WithCancel(ctx)
	defer impatient()
	slow.Go(func() { w.apart.run(patiently, quick) })
	slow.Go(func() { w.apart.run(patiently, patient) })

	buf := make([]jetstream.Msg, 0, w.cfg.Batch)
	linger := batch.Linger{Max: w.cfg.Linger, Few: few}
	for {
		buf = batch.GatherBytes(draining, messages, buf[:0], w.cfg.Batch, linger.After(len(buf)), size, maxBatchBytes)
		if len(buf) == 0 {
			if ctx.Err() == nil {
				return fmt.Errorf("reading %s: %w", stream.Decoded, stream.ErrConsumerGone)
			}
			return nil
		}
		waiting, err := w.write(draining, buf)
		for len(waiting) > 0 || err != nil {
			if draining.Err() != nil {
				w.log.Warn("stopped before all messages were written; DECODED keeps them", "messages", len(waiting), "error", fault(err))
				return nil
			}
			next := w.waiting.begin(err)
			w.metrics.retries.Inc()
			w.log.Warn("writing to the database failed, will retry", "messages", len(waiting), "error", fault(err), "retry_in", next.Round(time.Millisecond).String())
			waiting, err = w.write(draining, w.more(draining, messages, waiting, next))
		}
		w.waiting.end()
		clear(buf)
	}
}

// more waits, and adds the messages that come meanwhile to the waiting ones: messages of other
// controllers show whether the waiting ones are at fault.
func (w *Writer) more(ctx context.Context, in <-chan jetstream.Msg, waiting []jetstream.Msg, wait time.Duration) []jetstream.Msg {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	room := maxBatchBytes
	for _, m := range waiting {
		room -= size(m)
	}
	if len(waiting) < w.cfg.Batch && room > 0 {
		waiting = batch.GatherBytes(ctx, in, waiting, w.cfg.Batch, wait, size, room)
	}
	<-ctx.Done()
	return waiting
}

// size returns a message's size in bytes.
func size(m jetstream.Msg) int { return len(m.Data()) }

// retry repeats an operation that prepares the tables, with backoff, until it succeeds or
// can never succeed.
func (w *Writer) retry(ctx context.Context, operation func(context.Context) error) error {
	defer w.waiting.end()
	for {
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		err := operation(bounded)
		cancel()
		switch {
		case err == nil || hopeless(err):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		next := w.waiting.begin(err)
		w.metrics.retries.Inc()
		w.log.Warn("preparing the tables failed, will retry", "error", err, "retry_in", next.Round(time.Millisecond).String())
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(next):
		}
	}
}
