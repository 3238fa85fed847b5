// Package decoder turns RAW messages into DECODED ones with the fleet's
// metadata: a frame becomes the values of the sensor device wired to that pin,
// every other component's payload becomes an event. What cannot be decoded goes
// to DEAD_LETTER. A RAW message is acknowledged only after its outcome is
// stored (design 5.2).
//
// Batches are decoded by several workers; the messages of one controller go to
// the same worker, and results are stored in RAW's order. Several decoders on
// one consumer each get some of a controller's messages, and between them these
// may pass one another: the rows are the same, LATEST may be of an older one.
package decoder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/batch"
	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/payload"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Names of the streams that the decoder reads and writes.
const (
	RawStream     = "RAW"
	DecodedStream = "DECODED"
	LatestStream  = "KV_LATEST"
)

// Decoder is one decoder; run it once.
type Decoder struct {
	cfg        Config
	credential secret.Credential
	streams    *stream.Client
	log        *slog.Logger
	metrics    *metrics
	parser     payload.Parser
	pool       atomic.Pointer[database.Pool]
	cache      *cache
	done       recent
}

// New returns a decoder. credential is the metadata role's, and is followed where
// it changes; the decoder's metrics are in reg.
func New(cfg Config, credential secret.Credential, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Decoder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	zone, err := time.LoadLocation(cfg.Zone)
	if err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	return &Decoder{
		cfg: cfg, credential: credential, streams: streams, log: log,
		metrics: newMetrics(reg),
		parser:  payload.Parser{Zone: zone, MaxSize: cfg.MaxPayload},
	}, nil
}

// Run decodes until ctx ends, then stores and acknowledges what it has in hand.
func (d *Decoder) Run(ctx context.Context) error {
	if err := d.streams.Wait(ctx, DecodedStream, LatestStream, deadletter.Stream); err != nil {
		return err
	}
	consumer, err := d.streams.Open(ctx, RawStream, stage)
	if err != nil {
		return err
	}
	pool, err := database.OpenPooled(ctx, d.cfg.DSN, d.cfg.PooledDSN, d.credential)
	if err != nil {
		return fmt.Errorf("decoder: metadata-dsn, metadata-pooled-dsn: %w", err)
	}
	defer pool.Close()
	d.pool.Store(pool)
	if d.cache, err = newCache(&d.cfg, newLoader(pool.Pool, d.cfg.Schema).load, d.metrics, d.log); err != nil {
		return err
	}
	listening := make(chan struct{})
	listenCtx, stopListening := context.WithCancel(ctx)
	go func() {
		defer close(listening)
		listen(listenCtx, pool, d.cache, d.log)
	}()
	defer func() { stopListening(); <-listening }()

	if err := d.streams.Rewind(ctx, consumer); err != nil {
		return err
	}
	messages, err := d.streams.Consume(ctx, consumer, 2*d.cfg.Batch)
	if err != nil {
		return err
	}
	return d.process(ctx, messages)
}

// Ready proves that JetStream and the metadata's PostgreSQL answer.
func (d *Decoder) Ready(ctx context.Context) error {
	pool := d.pool.Load()
	if pool == nil {
		return errors.New("starting")
	}
	if err := pool.Ping(ctx); err != nil {
		return fmt.Errorf("asking the metadata database: %w", err)
	}
	return d.streams.Ready(ctx, DecodedStream)
}

// process takes batches until messages is closed, which it is soon after ctx
// ends, or with the consumer.
func (d *Decoder) process(ctx context.Context, messages <-chan jetstream.Msg) error {
	draining, cancel := stream.DrainContext(ctx, d.cfg.DrainTimeout)
	defer cancel()
	w := newWork(d.cfg.Workers, d.cfg.Batch)
	for {
		w.reset()
		w.messages = batch.Gather(draining, messages, w.messages, d.cfg.Batch, d.cfg.Linger)
		if len(w.messages) == 0 {
			if ctx.Err() == nil {
				return fmt.Errorf("reading %s: %w", RawStream, stream.ErrConsumerGone)
			}
			return nil
		}
		if err := d.processBatch(draining, w); err != nil {
			if ctx.Err() != nil {
				d.log.Warn("stopped before everything was decoded; RAW keeps it", "messages", len(w.messages), "error", err)
				return nil
			}
			return err
		}
	}
}
