package command

import (
	"context"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
)

// resume takes over a command that another process may have published.
func (c *Commands) resume(ctx, draining context.Context, o *order) error {
	e := o.expects()
	w := c.watches.add(o.component(), e)
	if report, ok := c.reportedSince(draining, o, e); ok {
		c.watches.remove(w)
		return c.finish(draining, o, outcome.Confirmed, "", report)
	}
	return c.follow(ctx, draining, o, w, released)
}

// follow waits for the report of a command that may have been published. It returns when
// the next command for the component may be sent.
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
	if what == "" { // the bridge stops
		c.giveBack(o)
		close(settled)
		return
	}
	var err error
	if o.resumed && c.hasOutcome(draining, o) {
		what, err = "", c.acknowledge(draining, o) // the other process still runs
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

// hasOutcome reports whether another process has stored an outcome.
func (c *Commands) hasOutcome(ctx context.Context, o *order) bool {
	last, err := c.recorded(ctx, o)
	return err == nil && last != nil && last.Outcome != outcome.Sent
}

// wait returns the outcome of the command, or "" if ctx ends before it is known.
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

// judge returns the outcome of a command that no report confirmed in time.
func (c *Commands) judge(o *order, f fate) (outcome.Outcome, string) {
	away, heard := !o.resumed && c.fleet.awaySince(o.place.MAC, o.sent), c.fleet.heardSince(o.place.MAC, o.sent)
	switch {
	case away && !heard:
		return outcome.Expired, "the controller was not connected until the command expired"
	case f == taken && heard && !away:
		return outcome.Delivered, "the controller did not report the component's state"
	case f == taken:
		return outcome.Unknown, "the MQTT broker accepted it, and the controller has sent nothing since"
	case o.resumed:
		return outcome.Unknown, "the bridge stopped while the command was being sent"
	}
	return outcome.Unknown, "the connection to the MQTT broker was lost while the command was being sent"
}

// settle waits for a late report, which replaces an unknown outcome.
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
