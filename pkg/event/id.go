package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// ID identifies one message of a device on every hop (design 5.3): the first
// 128 bits of a SHA-256, so that no device can forge another's. It is the
// Nats-Msg-Id on RAW and the uuid of a device_event row.
type ID [16]byte

// NewID derives the id from where a message was published and its body. place
// is the canonical RAW subject, which holds the MAC, or the MQTT topic as it
// came when it does not parse.
//
// Two equal bodies are one event only if the device stamped them: a body
// without a "timestamp" takes the bridge's receive time into its id (design
// 5.7), so that a second equal status is not taken for a copy of the first.
func NewID(place string, body []byte, received time.Time) ID {
	var stack [512]byte
	buf := append(stack[:0], place...)
	buf = append(buf, 0)
	buf = append(buf, body...)
	if !HasTimestamp(body) {
		buf = append(buf, 0)
		buf = binary.BigEndian.AppendUint64(buf, uint64(received.UnixNano()))
	}
	sum := sha256.Sum256(buf)
	return ID(sum[:16])
}

var timestampKey = []byte(`"timestamp"`)

// HasTimestamp tells whether body holds a "timestamp" key, without parsing it:
// those bytes followed by a colon can stand in valid JSON only as a key, or, if
// their first quote is escaped, as the end of one. It finds a key of a nested
// object too, and not one that is spelled with escapes.
func HasTimestamp(body []byte) bool {
	rest := body
	for {
		i := bytes.Index(rest, timestampKey)
		if i < 0 {
			return false
		}
		escaped := i > 0 && rest[i-1] == '\\'
		rest = rest[i+len(timestampKey):]
		if after := bytes.TrimLeft(rest, " \t\r\n"); !escaped && len(after) > 0 && after[0] == ':' {
			return true
		}
	}
}

// String gives 32 lower-case hex digits, which PostgreSQL reads as a uuid.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText is String.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads what String wrote.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("event id has %d characters, not %d", len(text), 2*len(id))
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("event id: %w", err)
	}
	return nil
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	err := id.UnmarshalText([]byte(s))
	return id, err
}
