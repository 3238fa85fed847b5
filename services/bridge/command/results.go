package command

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// requestTimeout is how long one request to JetStream may take.
const requestTimeout = 5 * time.Second

// untilDone repeats attempt until it succeeds or ctx ends.
func (c *Commands) untilDone(ctx context.Context, what string, attempt func(context.Context) error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		bounded, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		return struct{}{}, attempt(bounded)
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, _ time.Duration) {
			c.log.Warn("JetStream request failed, will retry", "for", what, "error", err)
		}))
	return err
}

// store returns when RESULT has the result. RESULT stores it once, even if several
// processes try; known means that it was there already.
func (c *Commands) store(ctx context.Context, r outcome.Result) (known bool, err error) {
	err = c.untilDone(ctx, "a command's result", func(ctx context.Context) error {
		m, err := r.Msg()
		if err != nil {
			return backoff.Permanent(err)
		}
		ack, err := c.streams.JetStream().PublishMsg(ctx, m)
		known = err == nil && ack.Duplicate
		return err
	})
	return known, err
}

// clockSkew is the assumed difference between the clocks of a cluster's servers.
const clockSkew = 10 * time.Second

// recorded returns the last result that RESULT has of a command, or nil.
func (c *Commands) recorded(ctx context.Context, o *order) (last *outcome.Result, err error) {
	err = c.untilDone(ctx, "the results of a command", func(ctx context.Context) error {
		last, err = c.scan(ctx, o)
		return err
	})
	return last, err
}

func (c *Commands) scan(ctx context.Context, o *order) (last *outcome.Result, err error) {
	start := o.issued.Add(-clockSkew)
	q := stream.Query{Next: outcome.Subject(o.msg.Subject()), Start: &start}
	for {
		m, err := c.streams.Message(ctx, stream.Result, q)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		// A stream that was deleted and created again counts from 1 again.
		if r, err := outcome.Parse(m.Header, m.Data); err == nil && r.Sequence == o.sequence && r.Issued.Equal(o.issued) {
			last = &r
		}
		q.Start, q.Sequence = nil, m.Sequence+1
	}
}

// lastRaw returns the last message of RAW on a subject, or nil.
func (c *Commands) lastRaw(ctx context.Context, subject string) (m *jetstream.RawStreamMsg, err error) {
	err = c.untilDone(ctx, "the last message of a controller", func(ctx context.Context) error {
		m, err = c.streams.Message(ctx, stream.Raw, stream.Query{Last: subject})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			m, err = nil, nil
		}
		return err
	})
	return m, err
}

// spellingOf returns how a controller spells its topics. After a start it reads RAW.
func (c *Commands) spellingOf(ctx context.Context, mac topic.MAC) (spelling, error) {
	if s, ok := c.fleet.spelling(mac); ok {
		return s, nil
	}
	var last *jetstream.RawStreamMsg
	// Under cmnd are the readings of older firmware, and the bridge's own commands.
	for _, subject := range []string{"f2.raw.tele." + string(mac) + ".>", "f2.raw.stat." + string(mac) + ".>", "f2.raw.cmnd." + string(mac) + ".sensor-mode.>"} {
		m, err := c.lastRaw(ctx, subject)
		if err != nil {
			return spelling{}, err
		}
		if m != nil && len(m.Data) > 0 && (last == nil || m.Sequence > last.Sequence) {
			last = m
		}
	}
	var s spelling
	if last != nil {
		if t, err := topic.ParseSubject(last.Subject); err == nil {
			name := last.Header.Get(event.HeaderTopic)
			if name == "" {
				name = t.MQTT()
			}
			s = heardAs(t, name, s)
		}
	}
	c.fleet.remember(mac, s)
	s, _ = c.fleet.spelling(mac)
	return s, nil
}

// reportedSince looks in RAW for a report that came before this process started.
func (c *Commands) reportedSince(ctx context.Context, o *order, e expectation) ([]byte, bool) {
	t := o.place
	t.Root, t.Verb = topic.Stat, ""
	m, err := c.lastRaw(ctx, t.RawSubject())
	if err != nil || m == nil {
		return nil, false
	}
	received, err := time.Parse(time.RFC3339Nano, m.Header.Get(event.HeaderReceived))
	if err != nil || received.Before(o.sent) || !e.met(topic.Stat, t.Component.Kind, m.Data) {
		return nil, false
	}
	return state(t.Component.Kind, m.Data), true
}
