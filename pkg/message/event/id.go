package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// ID identifies one message of a device in all streams and tables (design 5.3) by its place
// in RAW: the stream's incarnation and the sequence, eight bytes each, big-endian. It is the
// uuid of a device_event row. IDs of later messages compare as greater. A message that never
// reached RAW has the zero ID.
type ID [16]byte

// PlaceID returns the ID of the message at sequence in RAW. incarnation is when the stream was
// created, in nanoseconds since 1970: it tells a stream that was deleted and created again from
// the first. A restore keeps it (see stream.Incarnation).
func PlaceID(incarnation, sequence uint64) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], incarnation)
	binary.BigEndian.PutUint64(id[8:], sequence)
	return id
}

// Incarnation returns the incarnation of RAW; see PlaceID.
func (id ID) Incarnation() uint64 { return binary.BigEndian.Uint64(id[:8]) }

// Sequence returns the message's sequence in RAW, or 0 for the zero ID.
func (id ID) Sequence() uint64 { return binary.BigEndian.Uint64(id[8:]) }

// Digest returns the first 128 bits of the SHA-256 of a message's place and body. It is used to
// compare a sender's list with RAW. place is the canonical RAW subject, or the MQTT topic as
// received if it does not parse. Equal messages have equal digests.
func Digest(place string, body []byte) [16]byte {
	var stack [512]byte
	buf := append(stack[:0], place...)
	buf = append(buf, 0)
	buf = append(buf, body...)
	sum := sha256.Sum256(buf)
	return [16]byte(sum[:16])
}

// String returns 32 lower-case hex digits, which PostgreSQL accepts as a uuid.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText is String.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText parses the result of String.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("event id has %d characters; it must have %d", len(text), 2*len(id))
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("parsing event id: %w", err)
	}
	return nil
}

// ParseID parses the result of String.
func ParseID(s string) (ID, error) {
	var id ID
	err := id.UnmarshalText([]byte(s))
	return id, err
}
