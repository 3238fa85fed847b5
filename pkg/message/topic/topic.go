// Package topic converts between the MQTT topics of F2 controllers, their
// canonical parts, and NATS subjects (section 2 of the design).
//
// A topic is <root>/f2-<mac>/<mode>/<connector>/<component>[/<verb>]. Parse accepts all
// spellings of the firmware's versions and returns one canonical form, so that a component
// has one subject whichever way its controller spells it. Subjects contain only lower-case
// letters, digits, '-' and '.', which NATS accepts.
//
// The package does not check that the MAC in a topic is the publisher's own (Mosquitto's ACL
// does), nor which component belongs to which mode. All functions are pure and safe for
// concurrent use.
package topic

import "strings"

// Root is the first level of a topic: the direction of a message.
type Root string

// The roots of section 2 of the design. Older firmware also publishes readings
// under Cmnd on a sensor.
const (
	Tele Root = "tele" // telemetry, from the controller
	Stat Root = "stat" // status, from the controller
	Cmnd Root = "cmnd" // commands, to the controller
)

// Mode is what a connector of a controller is configured for.
type Mode string

// The modes of section 2 of the design; there are no others.
const (
	SensorMode        Mode = "sensor-mode"
	AccessControlMode Mode = "access-control-mode"
	AlarmMode         Mode = "alarm-mode"
)

// Success is the only verb: it tells a controller the outcome of a read. Only commands to a
// reader have it.
const Success = "success"

// MaxNumber is the largest number of a connector or component; the smallest is 0.
const MaxNumber = 99

// Topic is a topic in canonical parts. It is comparable, so it can be a map's key.
type Topic struct {
	Root      Root      // empty when it comes from a decoded subject
	MAC       MAC       // of the controller
	Mode      Mode      // of the connector
	Connector int       // 0..99; J1..J4 are 1..4
	Component Component // what the message is about
	Verb      string    // empty, or Success
}

// The number of '/' in a topic without and with a verb.
const (
	slashes         = 4
	slashesWithVerb = 5
)

// Parse parses an MQTT topic. Errors are of type *Error. The strings of the result may share
// memory with s.
func Parse(s string) (Topic, error) {
	if n := strings.Count(s, "/"); n != slashes && n != slashesWithVerb {
		return Topic{}, &Error{Reason: ReasonBadLevels}
	}
	root, rest, _ := strings.Cut(s, "/")
	device, rest, _ := strings.Cut(rest, "/")
	mode, rest, _ := strings.Cut(rest, "/")
	connector, rest, _ := strings.Cut(rest, "/")
	component, verb, hasVerb := strings.Cut(rest, "/")

	var t Topic
	var ok bool
	if t.Root, ok = parseRoot(root); !ok {
		return Topic{}, &Error{Reason: ReasonBadRoot}
	}
	digits, ok := strings.CutPrefix(device, devicePrefix)
	if !ok {
		return Topic{}, &Error{Reason: ReasonBadPrefix}
	}
	if t.MAC, ok = parseMAC(digits); !ok {
		return Topic{}, &Error{Reason: ReasonBadMAC}
	}
	return t.withPlace(mode, trimJ(connector), component, verb, hasVerb)
}

// FindMAC returns the MAC of a topic that Parse refused, if its second level is "f2-<mac>". It
// is for dead letters only: the MAC is not verified.
func FindMAC(s string) (MAC, bool) {
	_, rest, _ := strings.Cut(s, "/")
	device, _, _ := strings.Cut(rest, "/")
	digits, ok := strings.CutPrefix(device, devicePrefix)
	if !ok {
		return "", false
	}
	return parseMAC(digits)
}

// withPlace adds to t the parts that topics and subjects have in common.
func (t Topic) withPlace(mode, connector, component, verb string, hasVerb bool) (Topic, error) {
	var ok bool
	if t.Mode, ok = parseMode(mode); !ok {
		return Topic{}, &Error{Reason: ReasonBadMode}
	}
	if t.Connector, ok = parseNumber(connector); !ok {
		return Topic{}, &Error{Reason: ReasonBadConnector}
	}
	if t.Component, ok = parseComponent(component); !ok {
		return Topic{}, &Error{Reason: ReasonBadComponent}
	}
	if !hasVerb {
		return t, nil
	}
	if verb != Success || t.Root != Cmnd || t.Component.Kind != Reader {
		return Topic{}, &Error{Reason: ReasonBadVerb}
	}
	t.Verb = Success
	return t, nil
}

func parseRoot(s string) (Root, bool) {
	switch Root(s) {
	case Tele:
		return Tele, true
	case Stat:
		return Stat, true
	case Cmnd:
		return Cmnd, true
	}
	return "", false
}

func parseMode(s string) (Mode, bool) {
	switch Mode(s) {
	case SensorMode:
		return SensorMode, true
	case AccessControlMode:
		return AccessControlMode, true
	case AlarmMode:
		return AlarmMode, true
	}
	return "", false
}

// trimJ turns J1..J4 into 1..4. It returns other strings unchanged, so that parseNumber refuses
// J0, J5 and J01.
func trimJ(s string) string {
	if len(s) == 2 && s[0] == 'J' && '1' <= s[1] && s[1] <= '4' {
		return s[1:]
	}
	return s
}

// parseNumber parses a canonical decimal 0..MaxNumber: no sign, no leading zero.
func parseNumber(s string) (int, bool) {
	switch len(s) {
	case 1:
		n := int(s[0]) - '0'
		return n, 0 <= n && n <= 9
	case 2:
		tens, ones := int(s[0])-'0', int(s[1])-'0'
		return 10*tens + ones, 1 <= tens && tens <= 9 && 0 <= ones && ones <= 9
	}
	return 0, false
}
