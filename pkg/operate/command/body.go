package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// The values of power.
const (
	powerOn     = "on"
	powerOff    = "off"
	powerToggle = "toggle"
)

// Body returns the payload of a command that switches a component: power is on, off, or for a
// strike toggle; period is the seconds that a strike stays on, 0 is until the next command. An
// empty power requests the component's state.
func Body(kind topic.ComponentKind, power string, period int) ([]byte, error) {
	flag, known := map[string]int{powerOff: 0, powerOn: 1, powerToggle: 2}[power]
	switch {
	case power == "" && period != 0:
		return nil, errors.New("a period needs the power on or toggle")
	case power == "":
		return nil, nil
	case !known:
		return nil, fmt.Errorf("power %q: it must be on, off or toggle", power)
	case period < 0 || period > 255:
		return nil, errors.New("the period must be 1 to 255 seconds")
	case kind == topic.Strike && period > 0 && power != powerOff:
		return fmt.Appendf(nil, `{"power-flag":%d,"period":%d}`, flag, period), nil
	case kind == topic.Strike:
		return fmt.Appendf(nil, `{"power-flag":%d}`, flag), nil
	case kind == topic.Siren && power == powerToggle:
		return nil, errors.New("a siren can be switched on or off, not toggled")
	case kind == topic.Siren && period != 0:
		return nil, errors.New("a siren has no period")
	case kind == topic.Siren:
		return strconv.AppendInt(nil, int64(flag), 10), nil
	}
	return nil, fmt.Errorf("a %s cannot be switched on or off; without power its state is requested", kind)
}

// Place returns the component that a person names: a MAC address in any notation, a connector
// with or without J, and a component. Without a mode it is the one that the kind of component
// usually has.
func Place(mac, mode, connector, component string) (topic.Topic, error) {
	m, err := topic.ParseMAC(mac)
	if err != nil {
		return topic.Topic{}, fmt.Errorf("%q is not a MAC address: 12 hex digits, without separators or with - or : between bytes", mac)
	}
	number := strings.TrimPrefix(strings.ToUpper(connector), "J")
	place := func(mode topic.Mode) (topic.Topic, error) {
		return topic.ParseSubject("f2.command." + strings.Join([]string{string(m), string(mode), number, component}, "."))
	}
	t, err := place(topic.SensorMode)
	if err != nil {
		return t, fmt.Errorf("connector %q, component %q: the connector must be J1 to J4 or 0 to 99, the component one such as strike-1, reader-1, siren-1, sensor-1, motion-sensor-1, door-sensors or exit-buttons", connector, component)
	}
	if mode == "" {
		return place(usualMode(t.Component.Kind))
	}
	if t, err = place(topic.Mode(mode)); err != nil {
		return t, fmt.Errorf("mode %q: it must be sensor-mode, access-control-mode or alarm-mode", mode)
	}
	return t, nil
}

func usualMode(kind topic.ComponentKind) topic.Mode {
	switch kind {
	case topic.Sensor:
		return topic.SensorMode
	case topic.Siren, topic.MotionSensor:
		return topic.AlarmMode
	}
	return topic.AccessControlMode
}
