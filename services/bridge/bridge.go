// Package bridge moves every MQTT message into JetStream: onto RAW if its topic
// parses, else onto DEAD_LETTER. It acknowledges MQTT only after JetStream has
// stored the message (design 5.1), so that what it has not stored stays in the
// broker's queue. In the other direction package command publishes COMMANDS to
// controllers.
//
// It does not look into payloads; the decoder does. It drops messages that the broker
// sends again and that RAW has (see window), and copies of retained messages; dead letters
// count both (see copies). It must be the only regular writer of RAW, since packet
// identifiers belong to one session. If the outcome of a store is unknown, the bridge
// reads it from RAW (see stream.Appender).
//
// Its memory is limited: messages that are not stored yet take at most
// Config.InflightBytes and 1 KiB for each of Config.Inflight messages, whatever their
// sizes and QoS, batches included. At the limit nothing is read from the broker. In
// addition, the window takes half a MiB and the events of the last minutes 8 MiB.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/batch"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/services/bridge/command"
)

// Bridge is one bridge; run it once.
type Bridge struct {
	cfg        Config
	credential secret.Login
	streams    *stream.Client
	log        *slog.Logger
	metrics    *metrics
	arrived    *queue
	clock      receiveClock
	window     *window
	raw        atomic.Pointer[stream.Appender] // nil until the end of RAW was read
	letters    *deadletter.Recorder            // of refused messages; copies has its own
	copies     *copies
	session    atomic.Pointer[session] // the current one
	moves      sync.Mutex              // one change of session at a time
	commands   *command.Commands
	requests   *requests
}

// New returns a bridge. It logs in again when credential changes, and registers its metrics
// in reg.
func New(cfg Config, credential secret.Login, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Bridge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	commands, err := newCommands(cfg, credential, streams, reg, log)
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	metrics := newMetrics(reg)
	return &Bridge{
		cfg: cfg, credential: credential, streams: streams, log: log,
		metrics:  metrics,
		arrived:  newQueue(cfg.Inflight, cfg.InflightBytes, metrics.waiting),
		window:   newWindow(cfg.Inflight),
		letters:  deadletter.NewRecorder(streams),
		copies:   newCopies(deadletter.NewRecorder(streams)),
		commands: commands,
		requests: newRequests(cfg, streams, log),
	}, nil
}

// Run bridges until ctx ends. Then it stores the messages that have arrived and
// disconnects once the broker has read the acknowledgements, within DrainTimeout. The
// broker keeps the rest. Run may be called once.
func (b *Bridge) Run(ctx context.Context) error {
	if err := b.streams.Wait(ctx, stream.Raw, stream.DeadLetter, stream.Commands, stream.Result); err != nil {
		return err
	}
	first, err := b.newSession()
	if err != nil {
		return err
	}
	b.session.Store(first)
	first.client.Connect() // it tries until it succeeds or Disconnect is called
	defer func() {
		b.moves.Lock() // waits for a change that has begun; none begins after ctx has ended
		defer b.moves.Unlock()
		b.session.Load().client.Disconnect(disconnectWait)
	}()

	stopped := ctx
	group, ctx := errgroup.WithContext(stopped)
	storing, stop := stream.DrainContext(ctx, b.cfg.DrainTimeout)
	defer stop()
	b.credential.Notify(func() { b.move(ctx) })
	group.Go(func() error { return b.store(storing) })
	group.Go(func() error { return b.stopped(storing, b.copies.run(storing, b.arrived.closed())) })
	group.Go(func() error { return b.commands.Run(ctx) })
	group.Go(func() error { return b.requests.run(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		b.drain(storing)
		b.arrived.close()
		return nil
	})
	if err := group.Wait(); err != nil && (stopped.Err() == nil || !errors.Is(err, context.Canceled)) {
		return err
	}
	return nil
}

// drain returns when all messages that have arrived are stored and the broker has read
// their acknowledgements, or ctx ends.
func (b *Bridge) drain(ctx context.Context) {
	b.moves.Lock()
	defer b.moves.Unlock()
	b.session.Load().drain(ctx)
}

// store is the hot loop: gather, store, acknowledge. It ends when the queue is closed, so
// that a stop does not interrupt a batch that is being stored.
func (b *Bridge) store(ctx context.Context) error {
	raw, err := b.streams.OpenAppender(ctx, stream.Raw)
	if err == nil {
		err = b.window.recall(ctx, b.streams, raw.Last())
	}
	if err != nil {
		return b.stopped(ctx, err)
	}
	b.raw.Store(raw)
	buf := make([]arrival, 0, b.cfg.Batch)
	linger := batch.Linger{Max: b.cfg.Linger, Few: batch.Few}
	for {
		buf = batch.Gather(b.arrived.open, b.arrived.items, buf[:0], b.cfg.Batch, linger.After(len(buf)))
		if len(buf) == 0 {
			return nil
		}
		if err := b.storeBatch(ctx, buf); err != nil {
			return b.stopped(ctx, err)
		}
		clear(buf)
	}
}

// stopped returns err, or nil if the stop took too long, which it logs.
func (b *Bridge) stopped(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	b.log.Warn("stopped before all messages were stored; the broker keeps them", "error", err)
	return nil
}

// storeBatch returns when every message of the batch is on disk and acknowledged, in the
// order of arrival.
func (b *Bridge) storeBatch(ctx context.Context, arrivals []arrival) error {
	s := b.sort(arrivals)
	b.metrics.received.Add(float64(len(arrivals)))
	if err := b.append(ctx, s); err != nil {
		return err
	}
	if err := b.letters.Record(ctx, s.letters); err != nil {
		return err
	}
	size := int64(0)
	for i := range arrivals {
		arrivals[i].session.acknowledge(arrivals[i])
		size += arrivals[i].size
	}
	b.arrived.release(size)
	for i := range s.letters {
		b.metrics.deadLetters.WithLabelValues(s.letters[i].Reason).Inc()
	}
	return nil
}

// stalled is how long RAW may refuse all messages before the bridge is not ready.
const stalled = 3 * time.Second

// Ready returns an error unless the bridge is connected to the broker, JetStream responds
// and RAW stores messages.
func (b *Bridge) Ready(ctx context.Context) error {
	if s := b.session.Load(); s == nil || !s.client.IsConnectionOpen() {
		return errors.New("not connected to the MQTT broker at " + b.cfg.URL)
	}
	if err := b.commands.Ready(); err != nil {
		return err
	}
	info, err := b.streams.Info(ctx, stream.Raw)
	if err != nil {
		return err
	}
	if limit, room := info.Config.MaxBytes, info.Config.MaxBytes-int64(info.State.Bytes); limit > 0 && room <= int64(b.cfg.MaxPayload) { //nolint:gosec // below limit
		return fmt.Errorf("%s is full (%d of %d bytes) because the decoder has not decoded its messages: start the decoder or see its log, or raise the limit with nats stream edit %s --max-bytes", stream.Raw, info.State.Bytes, limit, stream.Raw)
	}
	raw := b.raw.Load()
	if raw == nil {
		return errors.New("starting: reading the end of " + stream.Raw + ", to recognise messages that the broker sends again")
	}
	if since, problem := raw.Failing(); !since.IsZero() && time.Since(since) > stalled {
		return fmt.Errorf("%s has stored nothing for %s; check that the stream (nats stream info %s) and the NATS server's disk are not full: %w",
			stream.Raw, time.Since(since).Round(time.Second), stream.Raw, problem)
	}
	return nil
}
