package simulator

import (
	"context"
	"errors"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// grace is how long a controller that stops waits for PUBACKs.
const grace = 2 * time.Second

// maxOut is the largest buffer that is reused for the next write.
const maxOut = 64 << 10

var errSilent = errors.New("the broker does not respond")

// writer builds and writes a controller's messages on one connection.
type writer struct {
	*device
	session *session
	lost    <-chan error
	ended   bool            // the error of lost was received
	opened  <-chan struct{} // the gate's; nil when it was seen open
	alarm   *time.Timer
	ping    *time.Ticker
}

func newWriter(d *device, s *session, lost <-chan error) *writer {
	return &writer{device: d, session: s, lost: lost, opened: d.sim.gate.opened}
}

// run writes until the controller has finished or ctx ends, without an error, or until
// the connection is lost.
func (w *writer) run(ctx context.Context) error {
	w.alarm = time.NewTimer(0)
	defer w.alarm.Stop()
	w.ping = time.NewTicker(keepAlive / 2)
	defer w.ping.Stop()
	stop := context.AfterFunc(ctx, func() { _ = w.session.conn.SetWriteDeadline(time.Now().Add(grace)) })
	defer stop()

	for ctx.Err() == nil {
		now := time.Now()
		w.build(now)
		if err := w.flush(); err != nil {
			return err
		}
		if w.finished() {
			return nil
		}
		w.setAlarm(now)
		if err := w.wait(ctx.Done()); err != nil {
			return err
		}
	}
	return w.drain()
}

// drain writes the built messages and waits up to grace for PUBACKs.
func (w *writer) drain() error {
	over := make(chan struct{})
	stop := time.AfterFunc(grace, func() { close(over) })
	defer stop.Stop()
	for {
		if err := w.flush(); err != nil {
			return err
		}
		if w.window.empty() {
			return nil
		}
		select {
		case <-over:
			return nil
		default:
		}
		if err := w.wait(over); err != nil {
			return err
		}
	}
}

// wait returns when there may be something to do.
func (w *writer) wait(done <-chan struct{}) error {
	select {
	case <-w.window.wake:
	case <-w.alarm.C:
	case <-w.opened:
		w.opened = nil
	case <-done:
	case err := <-w.lost:
		w.ended = true
		return err
	case <-w.ping.C:
		return w.probe()
	}
	return nil
}

// probe sends a PINGREQ. If not even the response to the last one came, the broker is gone.
func (w *writer) probe() error {
	if !w.heard.Swap(false) {
		return errSilent
	}
	return packets.NewControlPacket(packets.Pingreq).Write(w.session.conn)
}

// flush writes all waiting packets with one Write.
func (w *writer) flush() error {
	out, fresh, repeated := w.window.gather(w.out[:0])
	out = w.window.appendAcks(out)
	w.out = out
	if cap(out) > maxOut {
		w.out = nil
	}
	if len(out) == 0 {
		return nil
	}
	w.sim.counters.sent.Add(fresh)
	w.sim.counters.retried.Add(repeated)
	_, err := w.session.conn.Write(out)
	return err
}

// maxBurst is how long readings are collected at most before they are sent at a rate.
const maxBurst = 250 * time.Millisecond

// burst is how many readings are collected before they are sent at a rate, so that they
// share a write: half a window, or what is due after maxBurst, and at least one.
func (d *device) burst() float64 {
	return max(1, min(d.rate*maxBurst.Seconds(), float64(d.sim.cfg.Inflight+1)/2))
}

// setAlarm sets the timer for the next interval, the next burst, or the next strike that
// switches itself off.
func (w *writer) setAlarm(now time.Time) {
	var next time.Time
	switch {
	case w.sim.cfg.Interval > 0:
		next = w.due
	case w.rate > 0:
		next = now.Add(time.Duration((w.burst() - w.owed) / w.rate * float64(time.Second)))
	}
	for i := range w.components {
		if at := w.components[i].offAt; at != 0 && (next.IsZero() || at < next.UnixMicro()) {
			next = time.UnixMicro(at)
		}
	}
	if !next.IsZero() {
		w.alarm.Reset(max(next.Sub(now), time.Millisecond))
	}
}
