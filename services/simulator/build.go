package simulator

import (
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// build adds the controller's next messages to the window, as far as there is room:
// answers first, then readings and events.
func (d *device) build(now time.Time) {
	for _, c := range d.window.commands(d.window.free()) {
		d.answer(c, now)
	}
	d.release(now)
	d.report(now)
}

// answer carries out a command and confirms it.
func (d *device) answer(c command, now time.Time) {
	k := &d.components[d.byPlace[c.place]]
	k.obey(c, now.UnixMicro())
	d.clock.tick(now)
	switch k.kind {
	case topic.Reader:
		return // has no state to report
	case topic.Sensor:
		d.payload = k.appendReading(d.payload[:0], &d.clock, d.random)
		d.push(k.report, answer)
	default:
		d.payload = k.appendState(d.payload[:0], &d.clock)
		d.push(k.confirm, answer)
	}
}

// release switches strikes off whose period is over, and reports it.
func (d *device) release(now time.Time) {
	for i := range d.components {
		k := &d.components[i]
		if k.offAt == 0 || now.UnixMicro() < k.offAt || d.window.free() == 0 {
			continue
		}
		k.on[0], k.offAt = false, 0
		d.clock.tick(now)
		d.payload = k.appendState(d.payload[:0], &d.clock)
		d.push(k.confirm, answer)
	}
}

// report builds the readings and events that are due, as far as there is room.
func (d *device) report(now time.Time) {
	room := min(d.window.free(), d.allowance(now))
	if room <= 0 {
		return
	}
	first, count := d.sim.budget.claim(room)
	for i := range int64(count) {
		d.reportNext(first+i, now)
	}
	d.owed -= float64(room)
}

// allowance returns how many readings are due: one of each component at each interval,
// as many as the rate allows, or any number. A controller that was disconnected leaves
// out the intervals that it missed.
func (d *device) allowance(now time.Time) int {
	switch interval := d.sim.cfg.Interval; {
	case !d.sim.gate.isOpen():
		d.due = now
		return 0
	case interval > 0:
		if !now.Before(d.due) {
			d.owed = float64(len(d.components))
			d.due = d.due.Add(interval * (1 + now.Sub(d.due)/interval))
		}
	case d.rate > 0:
		d.owed = min(d.owed+d.rate*now.Sub(d.due).Seconds(), float64(d.sim.cfg.Inflight))
		d.due = now
		if d.owed < d.burst() {
			return 0 // a PUBACK woke the writer: wait for more readings
		}
	case d.sim.held.Load():
		d.owed = 0
	default:
		d.owed = float64(d.sim.cfg.Inflight)
	}
	return int(d.owed)
}

// reportNext builds message n of the fleet.
func (d *device) reportNext(n int64, now time.Time) {
	if m, ok := d.sim.budget.isMalformed(n); ok {
		bad := newMalformed(d.sim.cfg.Seed, m, d.firmware.mac)
		d.payload = append(d.payload[:0], bad.body...)
		d.push(bad.topic, firstMalformed+tally(bad.class))
		return
	}
	k := &d.components[d.turn]
	d.turn = (d.turn + 1) % len(d.components)
	d.clock.tick(now)
	d.payload = k.appendReading(d.payload[:0], &d.clock, d.random)
	d.push(k.report, tally(k.kind))
}

// push adds d.payload to the window, which must have room.
func (d *device) push(name string, as tally) {
	s, id := d.window.next()
	s.packet, s.body = appendPublish(s.packet[:0], name, id, d.payload)
	s.topic, s.tally = name, as
	d.window.push()
	if cap(d.payload) > maxSlot {
		d.payload = nil
	}
}
