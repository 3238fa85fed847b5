// Package command carries out commands: it takes them from COMMANDS, publishes each
// to its controller, and says on RESULT what became of it. A command acts on a door.
// In this order: it is never carried out late, never twice, and its sender always
// learns what became of it (design 11).
//
// Never late: the broker gets each command with an expiry, and is told to publish it
// right after it has answered (see session), so that nothing it reads late counts.
// Never twice: the intent is on RESULT before anything is published, RESULT takes it
// once, and what may have been published is not published again, by this process or
// another. A command
// stays unacknowledged in COMMANDS until RESULT has its outcome.
//
// Commands for one component go one after the other, in order, and those for others
// pass them. The controller's report, which the bridge hands to Heard, confirms a
// command. Where none comes, the broker's log says whether the controller was away.
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

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// MinAge is the shortest that leaves the broker, which counts in seconds, some time.
	MinAge = 5 * time.Second
	// MaxAge is the longest that a command may be given to live. It is less than the
	// consumer's ack_wait, with room for its outcome, so that JetStream delivers no
	// command that is still in hand.
	MaxAge = 2 * time.Minute
	// ackMargin is the room for the outcome.
	ackMargin = 30 * time.Second
	// prefetch is how many commands the server sends at a time. It takes an empty one
	// without headers, which asks for a status, for the last, and would lose the others.
	prefetch = 1
	// hold is how long the next command for a component waits for the report on the
	// last one. A component that does not report holds up its next command once.
	hold = 2 * time.Second
	// grace is how long a report may come after the last moment at which a command
	// could be given out, or after the start of a process that takes one over.
	grace = 2 * time.Second
	// settling is how long a report may still settle an unknown outcome.
	settling = 10 * time.Minute
	// maxSettling bounds how many may be settled.
	maxSettling = 10000
)

// Config says for which broker, and how long a command lives.
type Config struct {
	URL      string
	TLS      *tls.Config   // nil without
	ClientID string        // at the broker
	Consumer string        // durable consumer of COMMANDS, whose filter says for which controllers
	MaxAge   time.Duration // MinAge to MaxAge
	// DrainTimeout is how long a stop may take for commands that are on their way.
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
	lanes map[topic.Topic][]*order // by component; a goroutine works each
	taken map[uint64]bool          // by sequence: in hand
}

// New returns what carries out commands. credential is followed where it changes.
func New(cfg Config, credential secret.Credential, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Commands, error) {
	if cfg.MaxAge < MinAge || cfg.MaxAge > MaxAge {
		return nil, fmt.Errorf("a command's greatest age is %s; it must be %s to %s", cfg.MaxAge, MinAge, MaxAge)
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

// Heard takes note of a message of a controller, as it came: of how it spells its
// topics, and of what it reports. Copies of retained messages are none.
func (c *Commands) Heard(t topic.Topic, name string, body []byte, at time.Time) {
	if t.Root == topic.Cmnd && (t.Component.Kind != topic.Sensor || len(body) == 0) {
		return // what the bridge itself sent
	}
	c.fleet.hear(t, name, at)
	c.watches.report(t, body)
}

// Ready tells whether commands reach the broker.
func (c *Commands) Ready() error {
	if !c.publisher.ready() {
		return errors.New("not connected to the MQTT broker for commands")
	}
	return nil
}

// Run carries out commands until ctx ends, then sees those through that are on their
// way, within DrainTimeout. What has no outcome by then is the next process's.
func (c *Commands) Run(ctx context.Context) error {
	consumer, err := c.consumer(ctx)
	if err != nil {
		return err
	}
	if wait := consumer.CachedInfo().Config.AckWait; wait < c.cfg.MaxAge+ackMargin {
		c.log.Warn("the consumer's ack_wait is shorter than a command may live; edit it to be longer", "stream", stream.Commands, "consumer", c.cfg.Consumer,
			"ack_wait", wait.String(), "at_least", (c.cfg.MaxAge + ackMargin).String())
	}
	if err := c.publisher.connect(ctx); err != nil {
		return err
	}
	defer c.publisher.stop()
	c.publisher.credential.Notify(func() { c.publisher.move(ctx) })
	if err := c.streams.Rewind(ctx, consumer); err != nil {
		c.log.Warn("commands of the last process wait for their ack_wait", "error", err)
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
			_ = m.Nak() // or JetStream finds out by itself
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

// defaultConsumer is the one whose declaration the services know.
const defaultConsumer = stream.StageBridge

// consumer opens the place in COMMANDS. One of another name is the operator's to make.
func (c *Commands) consumer(ctx context.Context) (consumer jetstream.Consumer, err error) {
	if c.cfg.Consumer == defaultConsumer {
		return c.streams.Open(ctx, stream.Commands, defaultConsumer)
	}
	err = c.untilDone(ctx, "consumer "+stream.Commands+"/"+c.cfg.Consumer, func(ctx context.Context) error {
		consumer, err = c.streams.JetStream().Consumer(ctx, stream.Commands, c.cfg.Consumer)
		return err
	})
	return consumer, err
}

// ConsumerName is that of the bridge with a client id: "bridge" of f2mesh-bridge.
func ConsumerName(clientID string) string {
	name := strings.TrimPrefix(clientID, "f2mesh-")
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(".*>/\\ \t\r\n", r) {
			return '-'
		}
		return r
	}, name)
}

// accept puts a command into the lane of its component.
func (c *Commands) accept(ctx, draining context.Context, m jetstream.Msg) {
	o, err := newOrder(m, c.cfg.MaxAge)
	if err != nil {
		c.log.Error("a command without metadata", "subject", m.Subject(), "error", err)
		return
	}
	place := o.component()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[o.sequence] {
		return // JetStream delivered again what is in hand
	}
	c.taken[o.sequence] = true
	lane, busy := c.lanes[place]
	c.lanes[place] = append(lane, o)
	if !busy {
		c.work.Go(func() { c.workLane(ctx, draining, place) })
	}
}

// next is the lane's first command; without one the lane ends.
func (c *Commands) next(place topic.Topic) *order {
	c.mu.Lock()
	defer c.mu.Unlock()
	lane := c.lanes[place]
	if len(lane) == 0 {
		delete(c.lanes, place)
		return nil
	}
	c.lanes[place] = lane[1:]
	return lane[0]
}

// workLane takes the commands for one component one by one.
func (c *Commands) workLane(ctx, draining context.Context, place topic.Topic) {
	for o := c.next(place); o != nil; o = c.next(place) {
		if ctx.Err() != nil {
			c.giveBack(o)
			continue
		}
		if err := c.handle(ctx, draining, o); err != nil {
			if draining.Err() == nil {
				c.log.Error("a command has no outcome yet", "sequence", o.sequence, "error", err)
			}
			c.giveBack(o)
		}
	}
}

// giveBack leaves a command to the next process.
func (c *Commands) giveBack(o *order) {
	_ = o.msg.Nak() // or JetStream finds out by itself
	c.letGo(o)
}

func (c *Commands) letGo(o *order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.taken, o.sequence)
}

// handle carries a command out, or says why not. With an error it has no outcome.
func (c *Commands) handle(ctx, draining context.Context, o *order) error {
	last, err := c.recorded(draining, o)
	switch {
	case err != nil:
		return err
	case last == nil:
		return c.carryOut(ctx, draining, o)
	case last.Outcome == outcome.Sent:
		o.sent, o.resumed = last.Sent, true
		return c.resume(ctx, draining, o)
	}
	return c.acknowledge(draining, o)
}

// carryOut publishes a command that nobody has published yet.
func (c *Commands) carryOut(ctx, draining context.Context, o *order) error {
	if time.Now().After(o.deadline) {
		return c.finish(draining, o, outcome.Expired, "it waited longer than "+c.cfg.MaxAge.String()+" to be sent", nil)
	}
	if o.refusal != nil {
		return c.finish(draining, o, outcome.Refused, o.refusal.Error(), nil)
	}
	intime, cancel := context.WithDeadline(draining, o.deadline)
	defer cancel()
	f, w, err := c.send(intime, o)
	switch {
	case draining.Err() != nil && f == unsent:
		return draining.Err()
	case f == released || f == taken:
		return c.follow(ctx, draining, o, w, f)
	case f == withdrawn:
		return c.finish(draining, o, outcome.Refused, "the MQTT broker did not take it at once; it was withdrawn before it was published", nil)
	case o.resumed: // another process has been faster
		return c.resume(ctx, draining, o)
	case intime.Err() != nil || err == nil:
		return c.finish(draining, o, outcome.Expired, "the MQTT broker could not be reached in time", nil)
	}
	return err
}

// send records the intent and publishes. With unsent and no error there is no time
// left.
func (c *Commands) send(ctx context.Context, o *order) (fate, *watch, error) {
	name, err := c.spellingOf(ctx, o.place.MAC)
	if err != nil {
		return unsent, nil, err
	}
	recorded := false
	for {
		if err := c.publisher.await(ctx); err != nil {
			return unsent, nil, err
		}
		if _, _, ok := schedule(time.Now(), o.deadline); !ok {
			return unsent, nil, nil
		}
		if !recorded {
			o.sent, recorded = time.Now(), true
			o.resumed, err = c.store(ctx, o.result(outcome.Sent, "", nil))
			if err != nil || o.resumed {
				return unsent, nil, err
			}
		}
		w := c.watches.add(o.component(), o.expects())
		f := c.publisher.publish(ctx, name.spell(o.place), o.msg.Data(), o.deadline)
		if f == released || f == taken {
			return f, w, nil
		}
		c.watches.remove(w)
		if f == withdrawn {
			return f, nil, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// resume takes over a command that an earlier process may have published.
func (c *Commands) resume(ctx, draining context.Context, o *order) error {
	e := o.expects()
	w := c.watches.add(o.component(), e)
	if report, ok := c.reportedSince(draining, o, e); ok {
		c.watches.remove(w)
		return c.finish(draining, o, outcome.Confirmed, "", report)
	}
	return c.follow(ctx, draining, o, w, released)
}

// follow waits for the report of a command that may have been published. It returns
// when the next one of its component may go.
func (c *Commands) follow(ctx, draining context.Context, o *order, w *watch, f fate) error {
	settled := make(chan struct{})
	c.work.Go(func() {
		defer c.watches.remove(w)
		c.conclude(ctx, draining, o, w, f, settled)
	})
	if !w.expected.reports || o.resumed || c.watches.isSilent(w.place) {
		return nil
	}
	timer := time.NewTimer(hold)
	defer timer.Stop()
	select {
	case <-settled:
	case <-ctx.Done():
	case <-timer.C:
		c.watches.noteSilent(w.place)
	}
	return nil
}

// conclude stores the outcome of a command that may have been published, and closes
// settled.
func (c *Commands) conclude(ctx, draining context.Context, o *order, w *watch, f fate, settled chan<- struct{}) {
	what, detail, report := c.wait(ctx, o, w, f)
	if what == "" { // it stops
		c.giveBack(o)
		close(settled)
		return
	}
	var err error
	if o.resumed && c.hasOutcome(draining, o) {
		what, err = "", c.acknowledge(draining, o) // the other process is there still
	} else {
		err = c.finish(draining, o, what, detail, report)
	}
	close(settled)
	if err != nil {
		c.giveBack(o)
		return
	}
	if what == outcome.Unknown && w.expected.status != nil && c.watches.count.Load() < maxSettling {
		c.settle(ctx, draining, o, w)
	}
}

// hasOutcome tells whether another process has stored one.
func (c *Commands) hasOutcome(ctx context.Context, o *order) bool {
	last, err := c.recorded(ctx, o)
	return err == nil && last != nil && last.Outcome != outcome.Sent
}

// wait returns what became of the command, or nothing if ctx ends before that is
// known.
func (c *Commands) wait(ctx context.Context, o *order, w *watch, f fate) (what outcome.Outcome, detail string, report []byte) {
	end := o.deadline
	if now := time.Now(); o.resumed && now.After(end) {
		end = now
	}
	timer := time.NewTimer(time.Until(end.Add(grace)))
	defer timer.Stop()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case report := <-w.reported:
			return outcome.Confirmed, "", report
		case <-look.C:
			if !w.expected.reports && f == taken && c.fleet.heardSince(o.place.MAC, o.sent) {
				return outcome.Delivered, "", nil
			}
		case <-timer.C:
			what, detail := c.judge(o, f)
			return what, detail, nil
		case <-ctx.Done():
			return "", "", nil
		}
	}
}

// judge says what became of a command that no report confirmed, when its time is over.
func (c *Commands) judge(o *order, f fate) (outcome.Outcome, string) {
	away, heard := !o.resumed && c.fleet.awaySince(o.place.MAC, o.sent), c.fleet.heardSince(o.place.MAC, o.sent)
	switch {
	case away && !heard:
		return outcome.Expired, "the controller was not connected until its time was over"
	case f == taken && heard && !away:
		return outcome.Delivered, "the controller did not report the component's state"
	case f == taken:
		return outcome.Unknown, "the MQTT broker took it, and the controller was not heard of since"
	case o.resumed:
		return outcome.Unknown, "the bridge stopped while it was on its way"
	}
	return outcome.Unknown, "the connection to the MQTT broker was lost while it was on its way"
}

// settle waits for a late report.
func (c *Commands) settle(ctx, draining context.Context, o *order, w *watch) {
	timer := time.NewTimer(settling)
	defer timer.Stop()
	select {
	case report := <-w.reported:
		r := o.result(outcome.Confirmed, "the controller reported late", report)
		if _, err := c.store(draining, r); err == nil {
			c.metrics.outcomes.WithLabelValues(string(r.Outcome)).Inc()
		}
	case <-timer.C:
	case <-ctx.Done():
	}
}

// finish stores the outcome, and acknowledges the command when it is stored.
func (c *Commands) finish(ctx context.Context, o *order, what outcome.Outcome, detail string, report []byte) error {
	if _, err := c.store(ctx, o.result(what, detail, report)); err != nil {
		return err
	}
	c.metrics.outcomes.WithLabelValues(string(what)).Inc()
	return c.acknowledge(ctx, o)
}

func (c *Commands) acknowledge(ctx context.Context, o *order) error {
	if err := c.streams.Acknowledge(ctx, o.msg); err != nil {
		return err
	}
	c.letGo(o)
	return nil
}
