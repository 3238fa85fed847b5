package topic

import "strings"

// MAC is the hardware address of a controller: 12 lower-case hex digits.
type MAC string

// devicePrefix comes before the MAC in the second level of a topic.
const devicePrefix = "f2-"

const (
	macDigits    = 12                // without separators
	macSeparated = macDigits + 6 - 1 // with one between bytes
)

// ParseMAC reads a MAC in any case: bare, or with '-' or ':' between all its
// bytes. Errors are of type *Error with ReasonBadMAC.
func ParseMAC(s string) (MAC, error) {
	m, ok := parseMAC(s)
	if !ok {
		return "", &Error{Reason: ReasonBadMAC}
	}
	return m, nil
}

// Dashed returns the MAC as in a certificate's common name: e4-fd-45-f6-54-be. It returns a MAC
// of another length unchanged.
func (m MAC) Dashed() string {
	if len(m) != macDigits {
		return string(m)
	}
	b := make([]byte, 0, macSeparated)
	for i := 0; i < macDigits; i += 2 {
		if i > 0 {
			b = append(b, '-')
		}
		b = append(b, m[i], m[i+1])
	}
	return string(b)
}

// Spellings returns the spellings of the MAC in topics, except for mixed case: lower case, then
// upper case, each bare, with dashes and with colons. A MAC without letters has three. Parse
// also accepts mixed case.
func (m MAC) Spellings() []string {
	var all []string
	for _, bare := range []string{string(m), strings.ToUpper(string(m))} {
		dashed := MAC(bare).Dashed()
		all = append(all, bare, dashed, strings.ReplaceAll(dashed, "-", ":"))
	}
	if all[0] == all[len(all)/2] {
		return all[:len(all)/2]
	}
	return all
}

// parseMAC allocates only if s is not canonical.
func parseMAC(s string) (MAC, bool) {
	switch len(s) {
	case macDigits:
		return parseDigits(s)
	case macSeparated:
		return parseSeparated(s)
	}
	return "", false
}

func parseDigits(s string) (MAC, bool) {
	canonical := true
	for i := range len(s) {
		c := s[i]
		if !isHex(c) {
			return "", false
		}
		canonical = canonical && c == lower(c)
	}
	if canonical {
		return MAC(s), true
	}
	var b [macDigits]byte
	for i := range b {
		b[i] = lower(s[i])
	}
	return MAC(b[:]), true
}

func parseSeparated(s string) (MAC, bool) {
	separator := s[2]
	if separator != '-' && separator != ':' {
		return "", false
	}
	var b [macDigits]byte
	n := 0
	for i := range len(s) {
		c := s[i]
		if i%3 == 2 {
			if c != separator {
				return "", false
			}
			continue
		}
		if !isHex(c) {
			return "", false
		}
		b[n] = lower(c)
		n++
	}
	return MAC(b[:]), true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// lower is for hex digits: it maps A..F to a..f and leaves the others.
func lower(c byte) byte {
	if 'A' <= c && c <= 'F' {
		return c + 'a' - 'A'
	}
	return c
}
