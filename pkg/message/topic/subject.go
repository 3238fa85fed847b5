package topic

import (
	"strconv"
	"strings"
)

// The prefixes of the subjects of section 2 of the design.
const (
	rawPrefix     = "f2.raw."
	decodedPrefix = "f2.decoded."
	commandPrefix = "f2.command."
)

const (
	maxLevel  = 32  // bytes; the longest level is shorter
	maxLength = 112 // bytes; the longest topic or subject is shorter
)

// MQTT returns the canonical MQTT topic: with a bare MAC, and J1..J4 for the connectors 1..4.
// Parse is its inverse.
func (t Topic) MQTT() string {
	var buf [maxLength]byte
	b := append(buf[:0], t.Root...)
	b = append(b, '/')
	b = append(b, devicePrefix...)
	b = append(b, t.MAC...)
	b = append(b, '/')
	b = append(b, t.Mode...)
	b = append(b, '/')
	if 1 <= t.Connector && t.Connector <= 4 {
		b = append(b, 'J')
	}
	b = strconv.AppendInt(b, int64(t.Connector), 10)
	b = t.Component.append(append(b, '/'))
	return string(t.appendVerb(b, '/'))
}

// RawSubject returns f2.raw.<root>.<mac>.<mode>.<connector>.<component>[.<verb>].
func (t Topic) RawSubject() string {
	var buf [maxLength]byte
	b := append(buf[:0], rawPrefix...)
	b = append(append(b, t.Root...), '.')
	return string(t.appendVerb(t.appendPlace(b), '.'))
}

// DecodedSubject returns f2.decoded.<mac>.<mode>.<connector>.<component>.
func (t Topic) DecodedSubject() string {
	var buf [maxLength]byte
	return string(t.appendPlace(append(buf[:0], decodedPrefix...)))
}

// CommandSubject returns f2.command.<mac>.<mode>.<connector>.<component>[.<verb>].
func (t Topic) CommandSubject() string {
	var buf [maxLength]byte
	b := t.appendPlace(append(buf[:0], commandPrefix...))
	return string(t.appendVerb(b, '.'))
}

func (t Topic) appendPlace(b []byte) []byte {
	b = append(append(b, t.MAC...), '.')
	b = append(append(b, t.Mode...), '.')
	b = strconv.AppendInt(b, int64(t.Connector), 10)
	return t.Component.append(append(b, '.'))
}

func (t Topic) appendVerb(b []byte, separator byte) []byte {
	if t.Verb == "" {
		return b
	}
	return append(append(b, separator), t.Verb...)
}

// ParseSubject parses the subjects of RawSubject, CommandSubject (Root is Cmnd) and
// DecodedSubject (Root is empty). It accepts canonical tokens only. Errors are of type *Error.
// The strings of the result may share memory with s.
func ParseSubject(s string) (Topic, error) {
	if rest, ok := strings.CutPrefix(s, rawPrefix); ok {
		root, place, _ := strings.Cut(rest, ".")
		r, ok := parseRoot(root)
		if !ok {
			return Topic{}, &Error{Reason: ReasonBadRoot}
		}
		return parsePlace(r, place)
	}
	if place, ok := strings.CutPrefix(s, commandPrefix); ok {
		return parsePlace(Cmnd, place)
	}
	if place, ok := strings.CutPrefix(s, decodedPrefix); ok {
		return parsePlace("", place)
	}
	return Topic{}, &Error{Reason: ReasonBadSubject}
}

// The number of '.' after the root of a subject without and with a verb.
const (
	dots         = 3
	dotsWithVerb = 4
)

func parsePlace(root Root, s string) (Topic, error) {
	if n := strings.Count(s, "."); n != dots && n != dotsWithVerb {
		return Topic{}, &Error{Reason: ReasonBadLevels}
	}
	mac, rest, _ := strings.Cut(s, ".")
	mode, rest, _ := strings.Cut(rest, ".")
	connector, rest, _ := strings.Cut(rest, ".")
	component, verb, hasVerb := strings.Cut(rest, ".")

	m, ok := parseMAC(mac)
	if !ok || string(m) != mac {
		return Topic{}, &Error{Reason: ReasonBadMAC}
	}
	return Topic{Root: root, MAC: m}.withPlace(mode, connector, component, verb, hasVerb)
}
