package command

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// accept adds a command to the lane of its component.
func (c *Commands) accept(ctx, draining context.Context, m jetstream.Msg) {
	o, err := newOrder(m, c.cfg.MaxAge)
	if err != nil {
		c.log.Error("cannot read the metadata of a command", "subject", m.Subject(), "error", err)
		return
	}
	place := o.component()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[o.sequence] {
		return // delivered again while in progress
	}
	c.taken[o.sequence] = true
	lane, busy := c.lanes[place]
	c.lanes[place] = append(lane, o)
	if !busy {
		c.work.Go(func() { c.workLane(ctx, draining, place) })
	}
}

// next removes and returns the lane's first command. It returns nil and removes the lane
// if the lane is empty.
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

// workLane handles the commands for one component one after the other.
func (c *Commands) workLane(ctx, draining context.Context, place topic.Topic) {
	for o := c.next(place); o != nil; o = c.next(place) {
		if ctx.Err() != nil {
			c.giveBack(o)
			continue
		}
		if err := c.handle(ctx, draining, o); err != nil {
			if draining.Err() == nil {
				c.log.Error("handling a command; it will be delivered again", "sequence", o.sequence, "error", err)
			}
			c.giveBack(o)
		}
	}
}

// giveBack has JetStream deliver a command again.
func (c *Commands) giveBack(o *order) {
	_ = o.msg.Nak() // or it comes again after ack_wait
	c.letGo(o)
}

func (c *Commands) letGo(o *order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.taken, o.sequence)
}
