// Package bridge moves every MQTT message into JetStream: onto RAW if its topic
// parses, else onto DEAD_LETTER. It acknowledges MQTT only after JetStream has
// stored the message (design 5.1), so that what it has not stored stays in the
// broker's queue. In the other direction it publishes COMMANDS to controllers.
//
// It does not look into payloads; the decoder does.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/batch"
	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// RawStream is the stream of messages as the devices sent them.
const RawStream = "RAW"

// inFlight is how many messages the broker can have unacknowledged at once: an
// MQTT packet identifier has 16 bits. A queue of that length can always take
// the next message of a connection, so the handler does not block paho's loop;
// what bounds it in bytes is the broker's max_inflight_messages and
// max_inflight_bytes. Only where JetStream is away and the connection breaks
// again and again do the same messages, sent anew, fill it: then the handler
// waits, and memory stays bounded.
const inFlight = 1 << 16

// Bridge is one bridge; run it once.
type Bridge struct {
	cfg        Config
	credential secret.Credential
	streams    *stream.Client
	log        *slog.Logger
	metrics    *metrics
	arrived    chan arrival
	session    atomic.Pointer[session] // the current one
	moves      sync.Mutex              // one change of session at a time
	sending    chan struct{}           // holds one item while a command is on its way to the broker
}

// arrival is a message as it came from the broker.
type arrival struct {
	mqtt.Message
	at      time.Time
	session *session
}

// New returns a bridge. credential is followed where it changes; the bridge's
// metrics are in reg.
func New(cfg Config, credential secret.Credential, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Bridge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	return &Bridge{
		cfg: cfg, credential: credential, streams: streams, log: log,
		metrics: newMetrics(reg),
		arrived: make(chan arrival, inFlight),
		sending: make(chan struct{}, 1),
	}, nil
}

// Run bridges until ctx ends, then stores and acknowledges the batch in hand,
// within DrainTimeout, and disconnects. The broker keeps the rest. Run may be
// called once.
func (b *Bridge) Run(ctx context.Context) error {
	if err := b.streams.Wait(ctx, RawStream, deadletter.Stream, CommandStream); err != nil {
		return err
	}
	first, err := b.newSession()
	if err != nil {
		return err
	}
	b.session.Store(first)
	first.client.Connect() // goes on trying until it succeeds or Disconnect
	defer func() {
		b.moves.Lock() // a change that has begun ends first, and there is none behind ctx
		defer b.moves.Unlock()
		b.session.Load().client.Disconnect(disconnectWait)
	}()

	group, ctx := errgroup.WithContext(ctx)
	b.credential.Notify(func() { b.move(ctx) })
	group.Go(func() error { return b.store(ctx) })
	group.Go(func() error { return b.command(ctx) })
	return group.Wait()
}

// Ready proves that the broker lets the bridge in and that JetStream answers.
func (b *Bridge) Ready(ctx context.Context) error {
	if s := b.session.Load(); s == nil || !s.client.IsConnectionOpen() {
		return errors.New("not connected to the MQTT broker at " + b.cfg.URL)
	}
	return b.streams.Ready(ctx, RawStream)
}

// store is the hot loop: gather, store, acknowledge.
func (b *Bridge) store(ctx context.Context) error {
	// A stop must not tear a batch that is on its way to disk.
	draining, cancel := stream.DrainContext(ctx, b.cfg.DrainTimeout)
	defer cancel()
	buf := make([]arrival, 0, b.cfg.Batch)
	for {
		buf = batch.Gather(ctx, b.arrived, buf[:0], b.cfg.Batch, b.cfg.Linger)
		if len(buf) == 0 {
			return nil
		}
		if err := b.storeBatch(draining, buf); err != nil {
			if ctx.Err() != nil {
				b.log.Warn("stopped before everything was stored; the broker keeps it", "messages", len(buf), "error", err)
				return nil
			}
			return err
		}
		clear(buf)
	}
}

// storeBatch returns when every message of the batch is on disk, and
// acknowledged in the order of arrival.
func (b *Bridge) storeBatch(ctx context.Context, arrivals []arrival) error {
	raw := make([]*nats.Msg, 0, len(arrivals))
	var dead []*nats.Msg
	for i := range arrivals {
		m, letter := b.convert(arrivals[i].Topic(), arrivals[i].Payload(), arrivals[i].at)
		if letter != nil {
			dead = append(dead, letter.Msg())
			b.metrics.deadLetters.WithLabelValues(letter.Reason).Inc()
		} else {
			raw = append(raw, m)
		}
	}
	b.metrics.received.Add(float64(len(arrivals)))
	duplicates, err := b.streams.Store(ctx, RawStream, raw)
	if err != nil {
		return err
	}
	if _, err := b.streams.Store(ctx, deadletter.Stream, dead); err != nil {
		return err
	}
	for i := range arrivals {
		arrivals[i].session.acknowledge(arrivals[i])
	}
	b.metrics.stored.Add(float64(len(raw) - duplicates))
	b.metrics.duplicates.Add(float64(duplicates))
	return nil
}
