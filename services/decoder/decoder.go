// Package decoder turns RAW messages into DECODED ones with the fleet's
// metadata: a frame becomes the values of the sensor device wired to that pin,
// every other component's payload becomes an event. What cannot be decoded goes
// to DEAD_LETTER. A RAW message is acknowledged only after its outcome is
// stored (design 5.2).
//
// Batches are decoded by several workers; the messages of one controller go to
// the same worker, and results are stored in RAW's order.
package decoder

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/batch"
	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/payload"
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
	cfg       Config
	password  func(context.Context) (string, error)
	js        jetstream.JetStream
	files     fs.FS
	log       *slog.Logger
	publisher *stream.Publisher
	parser    payload.Parser
	cache     *cache
	done      recent
	stats     counters
}

// New returns a decoder. password answers the metadata role's password at every
// connect; files holds the stream definitions.
func New(cfg Config, password func(context.Context) (string, error), js jetstream.JetStream, files fs.FS, log *slog.Logger) (*Decoder, error) {
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
		cfg: cfg, password: password, js: js, files: files, log: log,
		publisher: stream.NewPublisher(js, log),
		parser:    payload.Parser{Zone: zone},
	}, nil
}

// Run decodes until ctx ends, then stores and acknowledges what it has in hand.
func (d *Decoder) Run(ctx context.Context) error {
	for _, name := range []string{RawStream, DecodedStream, LatestStream, deadletter.Stream} {
		if err := stream.Ensure(ctx, d.js, d.files, name, d.log); err != nil {
			return err
		}
	}
	consumer, err := stream.EnsureConsumer(ctx, d.js, d.files, RawStream, stage, d.log)
	if err != nil {
		return err
	}
	config, err := pgxpool.ParseConfig(d.cfg.DSN)
	if err != nil {
		return fmt.Errorf("decoder: metadata-dsn: %w", err)
	}
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) (err error) {
		c.Password, err = d.password(ctx)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("opening metadata pool: %w", err)
	}
	defer pool.Close()
	if d.cache, err = newCache(&d.cfg, newLoader(pool, d.cfg.Schema).load, d.log); err != nil {
		return err
	}
	listening := make(chan struct{})
	listenCtx, stopListening := context.WithCancel(ctx)
	go func() {
		defer close(listening)
		listen(listenCtx, config.ConnConfig, d.password, d.cache, d.log)
	}()
	defer func() { stopListening(); <-listening }()

	if err := stream.Rewind(ctx, d.js, consumer, d.log); err != nil {
		return err
	}
	messages, err := stream.Consume(ctx, consumer, 2*d.cfg.Batch, d.log)
	if err != nil {
		return err
	}
	return d.process(ctx, messages)
}

// process takes batches until messages is closed, which it is soon after ctx
// ends.
func (d *Decoder) process(ctx context.Context, messages <-chan jetstream.Msg) error {
	draining, cancel := stream.DrainContext(ctx, d.cfg.DrainTimeout)
	defer cancel()
	w := newWork(d.cfg.Workers, d.cfg.Batch)
	for {
		w.reset()
		w.messages = batch.Gather(draining, messages, w.messages, d.cfg.Batch, d.cfg.Linger)
		if len(w.messages) == 0 {
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
