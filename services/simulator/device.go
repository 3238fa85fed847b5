package simulator

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// device is one controller. Its fields belong to the goroutine of run, except for window,
// heard and those that never change.
type device struct {
	sim        *Simulator
	tls        *tls.Config
	firmware   firmware
	persistent bool                // the broker keeps its session
	byPlace    map[topic.Topic]int // into components
	window     *window
	heard      atomic.Bool // something came from the broker since the last probe

	arrived    bool // was connected at least once
	components []component
	clock      clock
	random     *rand.Rand
	turn       int       // the component whose reading is next
	rate       float64   // readings a second at full speed; 0 is no limit
	owed       float64   // readings that are due and not built yet
	due        time.Time // when the next interval starts; with a rate, when owed was computed
	payload    []byte    // reused
	out        []byte    // reused
}

func newDevice(s *Simulator, i int, config *tls.Config) *device {
	c := &s.controllers[i]
	d := &device{
		sim: s, tls: config,
		firmware:   newFirmware(c.MAC, i, s.cfg.OldFirmware),
		persistent: among(i, s.cfg.Persistent),
		byPlace:    map[topic.Topic]int{},
		window:     newWindow(s.cfg.Inflight),
		random:     rand.New(rand.NewPCG(s.cfg.Seed, uint64(i))), //nolint:gosec // not for secrets
		rate:       float64(s.cfg.Rate) / float64(len(s.controllers)),
		due:        time.Now().Add(s.cfg.Interval * time.Duration(i) / time.Duration(len(s.controllers))),
	}
	for _, connector := range c.Connectors {
		for _, part := range connector.Components {
			k := newComponent(d.firmware, connector, part, d.random)
			d.byPlace[k.place] = len(d.components)
			d.components = append(d.components, k)
		}
	}
	return d
}

// run keeps the controller connected until ctx ends or a bounded run is acknowledged.
func (d *device) run(ctx context.Context) {
	wait := backoff.NewExponentialBackOff()
	wait.MaxInterval = 10 * time.Second
	for ctx.Err() == nil && !d.finished() {
		err := d.connectAndServe(ctx, wait)
		if err == nil {
			continue
		}
		d.sim.lastError.Store(&err)
		d.sim.log.Debug("controller disconnected", "mac", string(d.firmware.mac), "error", err)
		sleep(ctx, wait.NextBackOff())
	}
}

// finished reports whether everything is sent and acknowledged.
func (d *device) finished() bool {
	return !d.sim.budget.left() && d.window.empty()
}

func (d *device) connectAndServe(ctx context.Context, wait *backoff.ExponentialBackOff) error {
	select {
	case d.sim.connecting <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	s, err := d.connect(ctx)
	<-d.sim.connecting
	if err != nil {
		return err
	}
	wait.Reset()
	return d.serve(ctx, s)
}

// serve simulates the controller on a connection until it ends.
func (d *device) serve(ctx context.Context, s *session) error {
	d.sim.connected.Add(1)
	defer d.sim.connected.Add(-1)
	d.sim.counters.connections.Add(1)
	d.heard.Store(true)
	if !d.arrived {
		d.arrived = true
		d.sim.gate.arrive()
	}

	lost := make(chan error, 1)
	go func() { lost <- s.read(d) }()
	w := newWriter(d, s, lost)
	err := w.run(ctx)
	if err == nil {
		s.disconnect()
	}
	_ = s.conn.Close()
	if !w.ended {
		<-lost //nolint:errcheck // the error shows at the next write
	}
	if err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// acknowledged handles a PUBACK. The reading goroutine calls it.
func (d *device) acknowledged(id uint16) {
	s := d.window.find(id)
	if s == nil {
		return
	}
	if f := d.sim.cfg.OnAcknowledged; f != nil {
		f(s.topic, s.packet[s.body:])
	}
	d.sim.digests.add(s.topic, s.packet[s.body:])
	d.sim.counters.acknowledged[s.tally].Add(1)
	d.window.release(s)
}

// receive handles a message for the controller. The reading goroutine calls it. A message
// that is not a command for one of the controller's components is acknowledged and ignored.
func (d *device) receive(p *packets.PublishPacket) {
	c, err := parseCommand(p.TopicName, p.Payload)
	_, known := d.byPlace[c.place]
	ok := err == nil && known
	silent := c.action == note
	if !d.window.take(c, ok && !silent, p.MessageID) && (!ok || !silent) { // the identifier is 0 with QoS 0
		return
	}
	d.sim.counters.commands.Add(1)
	if p.Dup {
		d.sim.counters.repeated.Add(1)
	}
	if f := d.sim.cfg.OnCommand; f != nil {
		f(CarriedOut{MAC: d.firmware.mac, Topic: p.TopicName, Body: p.Payload, Repeated: p.Dup, At: time.Now()})
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
