package alarm

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// ReceiverFailing is raised while a receiver accepts nothing.
const ReceiverFailing = "receiver_failing"

const (
	// outstanding are the most notifications that wait; it is the consumer's max_ack_pending.
	outstanding  = 1000
	failingAfter = 30 * time.Second
	sendTimeout  = 15 * time.Second
)

// outbox notifies the receivers of what is stored on ALARM. Its consumer is the outbox: an entry
// is acknowledged when each receiver has accepted it, or was given up for it. A receiver that
// fails does not hold up the others.
type outbox struct {
	s       *Server
	mu      sync.Mutex          // guards the fields below
	waiting map[uint64]*posting // by sequence on ALARM
	lanes   map[string]chan *letter
}

// posting is an entry for some receivers.
type posting struct {
	m    jetstream.Msg
	left int
}

// letter is an entry for one receiver.
type letter struct {
	sequence uint64
	receiver *Receiver
	entry    alert.Entry
	since    time.Time
}

// run delivers until ctx ends.
func (o *outbox) run(ctx context.Context) error {
	consumer, err := o.s.streams.Open(ctx, stream.Alarm, "notify")
	if err != nil {
		return stopped(ctx, err)
	}
	messages, release, err := o.s.streams.ConsumeRewinding(ctx, consumer, outstanding, mostBytes)
	if err != nil {
		return stopped(ctx, err)
	}
	defer release()
	var lanes sync.WaitGroup
	defer lanes.Wait()
	for m := range messages {
		o.post(ctx, m, &lanes)
	}
	return stopped(ctx, stream.ErrConsumerGone)
}

// post gives an entry to the receivers that it is for.
func (o *outbox) post(ctx context.Context, m jetstream.Msg, running *sync.WaitGroup) {
	meta, err := m.Metadata()
	entry, problem := alert.Parse(m.Data())
	if err != nil || problem != nil || m.Headers().Get(alert.HeaderKept) != "" {
		_ = m.Ack()
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.waiting[meta.Sequence.Stream]; p != nil {
		p.m = m // it came again while it waits
		return
	}
	p := &posting{m: m}
	for _, r := range o.s.receivers() {
		if !r.wants(&entry, time.Now()) {
			continue
		}
		lane := o.lanes[r.Name]
		if lane == nil {
			lane = make(chan *letter, outstanding)
			o.lanes[r.Name] = lane
			running.Go(func() { o.deliver(ctx, lane) })
		}
		p.left++
		lane <- &letter{sequence: meta.Sequence.Stream, receiver: r, entry: entry, since: time.Now()} // it has room for all that wait
	}
	if p.left == 0 {
		_ = m.Ack()
		return
	}
	o.waiting[meta.Sequence.Stream] = p
}

// deliver is a receiver's lane.
func (o *outbox) deliver(ctx context.Context, lane <-chan *letter) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-lane:
			if o.send(ctx, l) {
				o.settle(l)
			}
		}
	}
}

// send tries until the receiver accepts the notification or it is given up. It returns false
// only when ctx ends.
func (o *outbox) send(ctx context.Context, l *letter) bool {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, time.Minute
	name := l.receiver.Name
	for {
		bounded, cancel := context.WithTimeout(ctx, sendTimeout)
		err := l.receiver.notify(bounded, o.s.secrets, &l.entry)
		cancel()
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			o.s.metrics.notifications.WithLabelValues(name, "delivered").Inc()
			o.s.board.Clear(ReceiverFailing, name)
			return true
		}
		o.s.metrics.notifications.WithLabelValues(name, "failed").Inc()
		tried := time.Since(l.since)
		if tried >= failingAfter {
			o.s.board.Raise(ReceiverFailing, name, err.Error())
		}
		if tried >= o.s.cfg.GiveUp || isPermanent(err) {
			o.s.metrics.notifications.WithLabelValues(name, "given_up").Inc()
			o.s.board.Raise(ReceiverFailing, name, "a notification was given up: "+err.Error())
			o.s.log.Error("a notification was given up", "receiver", name, "alarm", l.entry.ID(), "error", err)
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait.NextBackOff()):
		}
	}
}

func (o *outbox) settle(l *letter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.waiting[l.sequence]
	if p.left--; p.left == 0 {
		_ = p.m.Ack() // else it comes again, and the receiver recognises it
		delete(o.waiting, l.sequence)
	}
}

// wants reports whether an entry is news for the receiver: an alarm that was raised or cleared,
// and is not shelved. What people do with an alarm is not.
func (r *Receiver) wants(e *alert.Entry, now time.Time) bool {
	if e.Quiet(now) || e.Acknowledged != nil && (e.Active() || e.Acknowledged.At.Equal(e.Time)) {
		return false
	}
	return (e.Status == alert.Raised || e.Status == alert.Cleared) && r.Severity.match(string(e.Severity)) && r.Rule.match(e.Rule)
}

// receivers are those of the current rules.
func (s *Server) receivers() []*Receiver {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules.current.Receivers
}

// Test notifies a receiver of an alarm that there is not.
func (s *Server) test(ctx context.Context, name string) error {
	for _, r := range s.receivers() {
		if r.Name == name {
			ctx, cancel := context.WithTimeout(ctx, sendTimeout)
			defer cancel()
			now := time.Now().UTC()
			return r.notify(ctx, s.secrets, &alert.Entry{
				Status: alert.Raised, Time: now, RaisedAt: now, Since: now, Severity: alert.Info, Summary: "This is a test of f2mesh alarm test",
				Identity: alert.Identity{Service: serviceName, Kind: "test", About: name}, Occurrence: now.Format("20060102150405"),
			})
		}
	}
	return fmt.Errorf("no receiver %q in the rules of the alarm service", name)
}
