package stream

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

const (
	// everybody is the size of Client.gate.
	everybody = math.MaxInt32
	// quietTimeout bounds how long Reconnect waits for what is on its way. Behind
	// it that is cut off as by any lost connection: delivered or stored again.
	quietTimeout = 3 * time.Second
	// moveTimeout bounds how long Reconnect waits for the new connection.
	moveTimeout = 5 * time.Second
)

// move is a Reconnect, as a Consume sees it.
type move struct {
	quiet chan struct{} // one for each Consume that has nothing on its way any more
	done  chan struct{} // closed when the connection is there again
}

// Reconnect logs in again, with the current credential, and waits a few seconds for it;
// a connection that is not there by then continues to try. What is
// on its way is let through before: batches that are being stored,
// acknowledgements, deliveries. So nothing is stored twice for lack of a response,
// and nothing has to wait for the consumer's ack_wait to be delivered again. The
// server may put back a few messages that it was just going to deliver, and then
// those come after some newer ones.
func (c *Client) Reconnect(ctx context.Context) error {
	c.moves.Lock()
	defer c.moves.Unlock()
	m := &move{quiet: make(chan struct{}), done: make(chan struct{})}
	defer close(m.done)
	if c.nc.IsConnected() {
		open := c.quiesce(ctx, m)
		defer open()
	}
	if err := c.nc.ForceReconnect(); err != nil {
		return fmt.Errorf("logging in to NATS again: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	if err := WaitConnected(bounded, c.nc); err != nil {
		return fmt.Errorf("logging in to NATS again: %w", err)
	}
	return nil
}

// quiesce waits until nothing is on its way, or for a few times quietTimeout.
// open lets traffic through again.
func (c *Client) quiesce(ctx context.Context, m *move) (open func()) {
	c.drain(ctx, m)
	ctx, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	open = func() {}
	if c.gate.Acquire(ctx, everybody) == nil {
		open = func() { c.gate.Release(everybody) }
	}
	if err := c.nc.FlushWithContext(ctx); err != nil {
		c.log.Warn("logging in to NATS again before all requests were answered", "error", err)
	}
	return open
}

// drain stops deliveries and waits for those on their way.
func (c *Client) drain(ctx context.Context, m *move) {
	ctx, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	c.mu.Lock()
	handovers := slices.Collect(maps.Keys(c.handover))
	c.mu.Unlock()
	for _, h := range handovers {
		select {
		case h <- m:
		case <-ctx.Done():
			return
		}
	}
	for range handovers {
		select {
		case <-m.quiet:
		case <-ctx.Done():
			return
		}
	}
}

// await is a Consume's part in a move: it has nothing on its way, and waits.
func (m *move) await() {
	select {
	case m.quiet <- struct{}{}:
		<-m.done
	case <-m.done:
	}
}

func (c *Client) join(h chan<- *move) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handover[h] = struct{}{}
}

func (c *Client) leave(h chan<- *move) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.handover, h)
}
