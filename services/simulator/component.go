package simulator

import (
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// component is the state of a component and how the component reports it. It belongs to
// the goroutine that builds the controller's messages.
type component struct {
	place    topic.Topic // of a command to it: Root Cmnd, no Verb
	report   string      // the topic of its readings and events
	confirm  string      // the topic of its answers to commands
	kind     topic.ComponentKind
	direct   bool     // numbers by label instead of a frame
	labels   [][]byte // `,"temperature":`, for direct
	decimals []int    // for direct
	signals  []signal
	frame    []byte
	inputs   [][]byte // `,"door-sensor-1":`
	on       []bool   // the state of each input, or one for strike, siren, motion sensor
	offAt    int64    // when a strike switches itself off, in microseconds since 1970; 0 is never
}

// The inputs of a connector that door-sensors and exit-buttons report.
const inputsEach = 2

// eventChance is the chance that an input changes from one message to the next.
const eventChance = 0.2

// newComponent spells topics as the controller's firmware does.
func newComponent(f firmware, connector fleet.Connector, c fleet.InstalledComponent, r *rand.Rand) component {
	t := topic.Topic{Root: topic.Cmnd, MAC: f.mac, Mode: connector.Mode, Connector: connector.Number, Component: c.Component}
	k := component{
		place: t, kind: c.Kind,
		report:  f.topic(reportRoot(f, c.Kind), t),
		confirm: f.topic(topic.Stat, t),
		on:      make([]bool, 1),
	}
	switch c.Kind {
	case topic.Sensor:
		k.plug(c, r)
	case topic.DoorSensors:
		k.wire("door-sensor-")
	case topic.ExitButtons:
		k.wire("exit-button-")
	}
	return k
}

// reportRoot returns the root of a component's own reports: stat for actuators, tele for
// everything else, and cmnd for sensors with older firmware.
func reportRoot(f firmware, kind topic.ComponentKind) topic.Root {
	switch {
	case kind == topic.Strike || kind == topic.Siren:
		return topic.Stat
	case kind == topic.Sensor && f.old:
		return topic.Cmnd
	}
	return topic.Tele
}

// plug makes the sensor's signals, in the order of its data points.
func (k *component) plug(c fleet.InstalledComponent, r *rand.Rand) {
	s := c.Sensor
	k.direct = s.Direct
	k.frame = newFrame(byte(c.Number), s.Template.DataLength) //nolint:gosec // at most 99
	for i := range s.Template.Points {
		p := &s.Template.Points[i]
		k.signals = append(k.signals, newSignal(p, r))
		k.labels = append(k.labels, member(strings.ToLower(p.Label)))
		k.decimals = append(k.decimals, p.Field.Decimals)
	}
}

func (k *component) wire(prefix string) {
	k.on = make([]bool, inputsEach)
	for i := range k.on {
		k.inputs = append(k.inputs, member(prefix+strconv.Itoa(i+1)))
	}
}

func member(name string) []byte { return []byte(`,"` + name + `":`) }

// appendReading changes the component's state and appends its payload.
func (k *component) appendReading(b []byte, c *clock, r *rand.Rand) []byte {
	b = appendTimestamp(b, c)
	switch k.kind {
	case topic.Sensor:
		b = k.appendSensor(b, c, r)
	case topic.Reader:
		b = appendToken(append(b, `,"data":"`...), r)
		b = append(b, '"')
	case topic.DoorSensors, topic.ExitButtons:
		b = k.appendInputs(b, r)
	case topic.MotionSensor:
		k.on[0] = k.on[0] != (r.Float64() < eventChance)
		b = k.appendStatus(b)
	default:
		b = k.appendStatus(b)
	}
	return append(b, '}')
}

// appendState appends the payload that answers a command.
func (k *component) appendState(b []byte, c *clock) []byte {
	b = appendTimestamp(b, c)
	if k.inputs == nil {
		return append(k.appendStatus(b), '}')
	}
	for i := range k.inputs {
		b = strconv.AppendBool(append(b, k.inputs[i]...), k.on[i])
	}
	return append(b, '}')
}

func appendTimestamp(b []byte, c *clock) []byte {
	b = append(b, `{"timestamp":"`...)
	return append(c.append(b), '"')
}

func (k *component) appendStatus(b []byte) []byte {
	return strconv.AppendBool(append(b, `,"status":`...), k.on[0])
}

func (k *component) appendInputs(b []byte, r *rand.Rand) []byte {
	for i := range k.inputs {
		k.on[i] = k.on[i] != (r.Float64() < eventChance)
		b = strconv.AppendBool(append(b, k.inputs[i]...), k.on[i])
	}
	return b
}

func (k *component) appendSensor(b []byte, c *clock, r *rand.Rand) []byte {
	if k.direct {
		for i := range k.signals {
			v := k.signals[i].step(r, c.day)
			b = strconv.AppendFloat(append(b, k.labels[i]...), v.Number, 'f', k.decimals[i], 64)
		}
		return b
	}
	for i := range k.signals {
		s := &k.signals[i]
		if err := s.point.Field.Encode(k.frame, s.step(r, c.day)); err != nil {
			panic("simulator: a data point of the fleet has a range that its encoding cannot hold: " + s.point.Label)
		}
	}
	seal(k.frame)
	b = appendHex(append(b, `,"data":"`...), k.frame)
	return append(b, '"')
}

// appendToken appends a random NFC identifier: seven bytes as hex.
func appendToken(b []byte, r *rand.Rand) []byte {
	const bits = 56
	for id, i := r.Uint64(), bits-4; i >= 0; i -= 4 {
		b = append(b, hexDigits[id>>i&0x0f])
	}
	return b
}
