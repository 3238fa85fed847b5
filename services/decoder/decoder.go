// Package decoder decodes RAW messages with the fleet's metadata and stores them on DECODED:
// a frame becomes the values of the sensor device that is wired to the pin, the payload of
// every other component becomes an event. Messages that cannot be decoded go to DEAD_LETTER.
// A RAW message is acknowledged only after its outcome is stored (design 5.2). The last state
// of each component goes to LATEST.
//
// Several workers decode a batch. Messages of one controller go to the same worker, and
// results are stored in RAW's order.
//
// A controller whose metadata cannot be read waits without delaying others: its messages,
// also newer ones, go to PARKED. When the metadata can be read again, its parked messages are
// decoded in order and removed, and newer ones flow again. parking.go tracks the waiting
// controllers, park.go stores their messages, unpark.go decodes them. After a crash between
// these steps, messages may be stored on DECODED again, with the same id.
//
// Several decoders on one consumer each get some of a controller's messages, which may then
// overtake one another. The rows are the same, but LATEST may have an older state.
package decoder

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/batch"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// maxBatchBytes limits the messages that are decoded together, and those that are prefetched.
const maxBatchBytes = 8 << 20

// Decoder is one decoder; run it once.
type Decoder struct {
	cfg        Config
	credential secret.Login
	streams    *stream.Client
	log        *slog.Logger
	metrics    *metrics
	parser     payload.Parser
	settings   settings
	running    atomic.Pointer[running] // nil: starting
	progress   progress
	parking    *parking
	room       room
	turn       turn

	// Run sets these.
	incarnation uint64 // of RAW; see event.PlaceID
	cache       *cache
	latest      *latest
	done        recent // messages of RAW whose outcome is stored
	replayed    recent // messages of RAW that were parked and have been decoded since
	recorder    *deadletter.Recorder
}

// running is what Ready needs.
type running struct {
	pool     *database.Pool
	consumer jetstream.Consumer
}

// turn is a lock for a batch, or for the last step of unparking a controller that keeps on
// sending.
type turn chan struct{}

// acquire returns false if ctx ends first.
func (t turn) acquire(ctx context.Context) bool {
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t turn) release() { <-t }

// New returns a decoder. credential is the metadata role's; the decoder connects again when it
// changes. It registers its metrics in reg.
func New(cfg Config, credential secret.Login, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Decoder, error) {
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
		metrics:  newMetrics(reg),
		settings: newSettings(&cfg, newMemberMemory(cfg.CacheControllers)),
		parser:   payload.Parser{Zone: zone, MaxSize: cfg.MaxPayload},
		parking:  newParking(), room: room{js: streams.JetStream()}, turn: make(turn, 1),
		recorder: deadletter.NewRecorder(streams),
	}, nil
}

// Run decodes until ctx ends, then stores and acknowledges the messages that it has.
func (d *Decoder) Run(ctx context.Context) error {
	if err := d.streams.Wait(ctx, stream.Decoded, stream.Latest, stream.Parked, stream.DeadLetter); err != nil {
		return err
	}
	consumer, err := d.streams.Open(ctx, stream.Raw, stage)
	if err != nil {
		return err
	}
	pool, err := database.OpenPooled(ctx, d.cfg.DSN, d.cfg.PooledDSN, d.credential)
	if err != nil {
		return fmt.Errorf("decoder: metadata-dsn, metadata-pooled-dsn: %w", err)
	}
	defer pool.Close()
	if err := d.prepare(ctx, pool); err != nil {
		return err
	}
	if err := d.takeReplays(ctx, pool.Pool); err != nil {
		return fmt.Errorf("taking requests on %s: %w", replay.Subject, err)
	}
	d.running.Store(&running{pool: pool, consumer: consumer})
	beside, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { listen(beside, pool, d.cache, d.log) })
	all.Go(func() { d.unpark(beside) })

	messages, release, err := d.streams.ConsumeRewinding(ctx, consumer, 2*d.cfg.Batch, maxBatchBytes)
	if err != nil {
		return err
	}
	defer release()
	return d.process(ctx, messages)
}

// prepare reads the state that the first message needs.
func (d *Decoder) prepare(ctx context.Context, pool *database.Pool) (err error) {
	raw, err := d.streams.JetStream().Stream(ctx, stream.Raw)
	if err != nil {
		return fmt.Errorf("reading %s: %w", stream.Raw, err)
	}
	d.incarnation = stream.Incarnation(raw.CachedInfo())
	if d.cache, err = newCache(&d.cfg, newLoader(pool.Pool, d.cfg.Schema).loadAll, d.metrics, d.log); err != nil {
		return err
	}
	d.cache.changed = d.parking.wake
	if d.latest, err = newLatest(d.streams.JetStream(), d.cfg.CacheControllers); err != nil {
		return err
	}
	return d.findParked(ctx)
}

// process decodes batches until messages is closed: soon after ctx ends, or when the consumer
// is deleted.
func (d *Decoder) process(ctx context.Context, messages <-chan jetstream.Msg) error {
	draining, cancel := stream.DrainContext(ctx, d.cfg.DrainTimeout)
	defer cancel()
	w := newWork(d.cfg.Workers, d.cfg.Batch)
	linger := batch.Linger{Max: d.cfg.Linger, Few: batch.Few}
	for {
		wait := linger.After(len(w.messages))
		w.reset()
		w.messages = batch.GatherBytes(draining, messages, w.messages, d.cfg.Batch, wait, size, maxBatchBytes)
		if len(w.messages) == 0 {
			if ctx.Err() == nil {
				return fmt.Errorf("reading %s: %w", stream.Raw, stream.ErrConsumerGone)
			}
			return nil
		}
		if err := d.processBatch(draining, w); err != nil {
			if ctx.Err() != nil {
				d.log.Warn("stopped before all messages were decoded; RAW keeps them", "messages", len(w.messages), "error", err)
				return nil
			}
			return err
		}
	}
}

func size(m jetstream.Msg) int { return len(m.Subject()) + len(m.Data()) }
