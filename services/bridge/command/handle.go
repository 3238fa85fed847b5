package command

import (
	"context"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
)

// handle carries a command out, or stores why not. After an error it has no outcome.
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

// carryOut publishes a command that was not published yet.
func (c *Commands) carryOut(ctx, draining context.Context, o *order) error {
	if time.Now().After(o.deadline) {
		return c.finish(draining, o, outcome.Expired, "it could not be sent within "+c.cfg.MaxAge.String(), nil)
	}
	if o.refusal != nil {
		return c.finish(draining, o, outcome.Refused, o.refusal.Error(), nil)
	}
	if since, away := c.fleet.awayNow(o.place.MAC); away && !o.waits {
		return c.finish(draining, o, outcome.Refused, "the controller is not connected since "+since.UTC().Format(time.RFC3339), nil)
	}
	intime, cancel := context.WithDeadline(draining, o.deadline)
	defer cancel()
	if o.toggles() {
		why, err := c.resolve(intime, o)
		switch {
		case why != "":
			return c.finish(draining, o, outcome.Refused, "a toggle needs the strike's state, and "+why, nil)
		case err != nil && draining.Err() == nil && intime.Err() != nil:
			return c.finish(draining, o, outcome.Expired, "the strike's state could not be read in time", nil)
		case err != nil:
			return err
		}
	}
	f, w, err := c.send(intime, o)
	switch {
	case draining.Err() != nil && f == unsent:
		return draining.Err()
	case f == released || f == taken:
		return c.follow(ctx, draining, o, w, f)
	case f == withdrawn:
		return c.finish(draining, o, outcome.Refused, "the MQTT broker responded too late; the command was withdrawn before it was published", nil)
	case o.resumed: // another process was faster
		return c.resume(ctx, draining, o)
	case intime.Err() != nil || err == nil:
		return c.finish(draining, o, outcome.Expired, "the MQTT broker could not be reached in time", nil)
	}
	return err
}

// send records the intent and publishes. If it returns unsent without an error, there was
// no time left.
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
		f := c.publisher.publish(ctx, name.spell(o.place), o.body, o.deadline)
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

// finish stores the outcome and then acknowledges the command.
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
