// Package command carries out commands: it takes them from COMMANDS, publishes each to its
// controller, and stores its outcome on RESULT. A command may open a door. So, in order of
// importance: a command is never carried out late, never twice, and its sender always
// learns the outcome (design 11).
//
// Never late: each command has an expiry at the broker. The broker may deliver a command
// only after a second packet, which is sent right after the broker's response (see
// session); a broker that reads the command late never gets that packet.
//
// Never twice: the intent is on RESULT before anything is published, and RESULT stores it
// once. A command that may have been published is never published again, by this or any
// other process. It stays unacknowledged in COMMANDS until RESULT has its outcome.
//
// Commands for one component are carried out one after the other, in order; commands for
// different components do not wait for each other. A command is confirmed by the
// controller's report, which the bridge passes to Heard. Without a report, the broker's
// log tells whether the controller was connected.
package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// MinAge is the shortest Config.MaxAge: the broker counts in whole seconds.
	MinAge = 5 * time.Second
	// MaxAge is the longest Config.MaxAge. With ackMargin it is less than the consumer's
	// ack_wait, so that JetStream does not deliver a command again while it is in progress.
	MaxAge = 2 * time.Minute
	// ackMargin is the time to store the outcome.
	ackMargin = 30 * time.Second
	// prefetch is how many commands the server sends at a time. The client takes an empty
	// message without headers, which is a request for a status, for the end of a batch,
	// and would lose the messages after it.
	prefetch = 1
	// hold is how long the next command for a component waits for the report of the
	// previous one. A component that does not report delays its next command once.
	hold = 2 * time.Second
	// grace is how long a report may take after the deadline of a command, or after the
	// start of a process that takes the command over.
	grace = 2 * time.Second
	// settling is how long a late report may still replace an unknown outcome.
	settling = 10 * time.Minute
	// maxSettling is how many commands may wait for a late report.
	maxSettling = 10000
)

// Config is the configuration of Commands.
type Config struct {
	URL      string        // of the broker
	TLS      *tls.Config   // nil: without TLS
	ClientID string        // at the broker
	Consumer string        // durable consumer of COMMANDS; its filter selects the controllers
	MaxAge   time.Duration // commands expire after it; MinAge to MaxAge
	// DrainTimeout is how long a stop waits for commands in progress.
	DrainTimeout time.Duration
}

// Commands carries out the commands of one consumer; run it once.
type Commands struct {
	cfg       Config
	streams   *stream.Client
	log       *slog.Logger
	metrics   *metrics
	fleet     *fleet
	watches   *watches
	publisher *publisher

	work  sync.WaitGroup
	mu    sync.Mutex
	lanes map[topic.Topic][]*order // by component; each has a goroutine
	taken map[uint64]bool          // sequences in progress
}

// New returns Commands. It logs in again when credential changes.
func New(cfg Config, credential secret.Login, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Commands, error) {
	if cfg.MaxAge < MinAge || cfg.MaxAge > MaxAge {
		return nil, fmt.Errorf("the maximum age of a command is %s; it must be %s to %s", cfg.MaxAge, MinAge, MaxAge)
	}
	f := newFleet()
	p, err := newPublisher(cfg, credential, f, log)
	if err != nil {
		return nil, err
	}
	return &Commands{
		cfg: cfg, streams: streams, log: log, metrics: newMetrics(reg), fleet: f, watches: newWatches(), publisher: p,
		lanes: map[topic.Topic][]*order{}, taken: map[uint64]bool{},
	}, nil
}

// Heard handles a controller's message: it notes how the controller spells its topics, and
// what it reports. name is the topic as received. Copies of retained messages must not be
// passed to it.
func (c *Commands) Heard(t topic.Topic, name string, body []byte, at time.Time) {
	if t.Root == topic.Cmnd && (t.Component.Kind != topic.Sensor || len(body) == 0) {
		return // a command of the bridge itself
	}
	c.fleet.hear(t, name, at)
	c.watches.report(t, body)
}

// Ready returns an error while there is no connection to the broker.
func (c *Commands) Ready() error {
	if !c.publisher.ready() {
		return errors.New("not connected to the MQTT broker for commands")
	}
	return nil
}

// Run carries out commands until ctx ends, then finishes those in progress, within
// DrainTimeout. Commands without an outcome are left to the next process.
func (c *Commands) Run(ctx context.Context) error {
	consumer, err := c.streams.Open(ctx, stream.Commands, c.cfg.Consumer)
	if err != nil {
		return err
	}
	if wait := consumer.CachedInfo().Config.AckWait; wait < c.cfg.MaxAge+ackMargin {
		c.log.Warn("the consumer's ack_wait is too short for the maximum age of a command; raise it with nats consumer edit", "stream", stream.Commands, "consumer", c.cfg.Consumer,
			"ack_wait", wait.String(), "at_least", (c.cfg.MaxAge + ackMargin).String())
	}
	if err := c.publisher.connect(ctx); err != nil {
		return err
	}
	defer c.publisher.stop()
	c.publisher.credential.Notify(func() { c.publisher.move(ctx) })
	if err := c.streams.Rewind(ctx, consumer); err != nil {
		c.log.Warn("commands that the previous process received come after their ack_wait", "error", err)
	}
	messages, release, err := c.streams.Consume(ctx, consumer, prefetch, stream.MinPrefetchBytes)
	if err != nil {
		return err
	}
	defer release()
	draining, cancel := stream.DrainContext(ctx, c.cfg.DrainTimeout)
	defer cancel()
	for m := range messages {
		if ctx.Err() != nil {
			_ = m.Nak() // or it comes again after ack_wait
			continue
		}
		c.accept(ctx, draining, m)
	}
	c.work.Wait()
	if ctx.Err() == nil {
		return fmt.Errorf("reading %s: %w", stream.Commands, stream.ErrConsumerGone)
	}
	return nil
}

// ConsumerName returns the name of the consumer for a bridge's client id: "bridge" for
// f2mesh-bridge, which setup creates. The operator has to create others.
func ConsumerName(clientID string) string {
	name := strings.TrimPrefix(clientID, "f2mesh-")
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(".*>/\\ \t\r\n", r) {
			return '-'
		}
		return r
	}, name)
}
