package topic

import (
	"strconv"
	"strings"
)

// ComponentKind is a kind of component. The zero ComponentKind is none.
type ComponentKind uint8

// The kinds of section 2 of the design. DoorSensors and ExitButtons have no number: they
// report all inputs of a connector in one message.
const (
	Sensor       ComponentKind = iota + 1 // a sensor on the RS-485 bus or an input
	MotionSensor                          // a motion detector
	Strike                                // an electric door strike
	Reader                                // a QR or NFC reader
	Siren                                 // a siren
	DoorSensors                           // all door contacts of a connector
	ExitButtons                           // all exit buttons of a connector
)

// String returns the kind as topics spell it, without a number, or "unknown".
func (k ComponentKind) String() string {
	switch k {
	case Sensor:
		return "sensor"
	case MotionSensor:
		return "motion-sensor"
	case Strike:
		return "strike"
	case Reader:
		return "reader"
	case Siren:
		return "siren"
	case DoorSensors:
		return "door-sensors"
	case ExitButtons:
		return "exit-buttons"
	}
	return "unknown"
}

func (k ComponentKind) numbered() bool { return k != DoorSensors && k != ExitButtons }

// Component is one component of a connector.
type Component struct {
	Kind   ComponentKind
	Number int // 0..99; 0 for DoorSensors and ExitButtons
}

// String returns the component as topics and subjects spell it: "sensor-1",
// "door-sensors".
func (c Component) String() string {
	var b [maxLevel]byte
	return string(c.append(b[:0]))
}

func (c Component) append(b []byte) []byte {
	b = append(b, c.Kind.String()...)
	if !c.Kind.numbered() {
		return b
	}
	return strconv.AppendInt(append(b, '-'), int64(c.Number), 10)
}

func parseComponent(s string) (Component, bool) {
	switch s {
	case "door-sensors":
		return Component{Kind: DoorSensors}, true
	case "exit-buttons":
		return Component{Kind: ExitButtons}, true
	}
	dash := strings.LastIndexByte(s, '-')
	if dash < 0 {
		return Component{}, false
	}
	kind, ok := parseNumbered(s[:dash])
	if !ok {
		return Component{}, false
	}
	n, ok := parseNumber(s[dash+1:])
	if !ok {
		return Component{}, false
	}
	return Component{Kind: kind, Number: n}, true
}

func parseNumbered(s string) (ComponentKind, bool) {
	switch s {
	case "sensor":
		return Sensor, true
	case "motion-sensor":
		return MotionSensor, true
	case "strike":
		return Strike, true
	case "reader":
		return Reader, true
	case "siren":
		return Siren, true
	}
	return 0, false
}
