// Package deadletter gives the form of a message on the DEAD_LETTER stream, and
// stores such letters. The headers say where, why and when a message was
// refused. The message itself is in RAW, where the letter says; only what never
// reached RAW is in the letter, cut beyond MaxPayload.
//
// The stream keeps the last letters of each stage, reason and controller. Every
// letter says how many there have been of its kind, so that those that are no
// longer kept stay counted (design 5.6).
package deadletter

import (
	"strconv"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Headers of a dead letter, beside those of package event.
const (
	HeaderDetail          = "F2-Detail"
	HeaderTopic           = "F2-Topic"
	HeaderTime            = "F2-Time"
	HeaderDataPoint       = "F2-Datapoint-Id"
	HeaderMetadataVersion = "F2-Metadata-Version"
	HeaderSQLState        = "F2-Sqlstate"
	// HeaderDecoded stands on the letter of one data point: how many others of
	// the message were decoded. With 0 there is no DECODED message.
	HeaderDecoded = "F2-Decoded"
	// HeaderMember names the members of a JSON payload that a letter of a part is about.
	HeaderMember = "F2-Member"
	// HeaderRawSequence is the refused message's sequence in RAW.
	HeaderRawSequence = "F2-Raw-Sequence"
	// HeaderCount is how many letters of the same subject there have been, this
	// one included, whether they are still kept or not.
	HeaderCount = "F2-Count"
	// HeaderPayloadLength and HeaderPayloadSHA256 describe the whole payload where
	// the letter holds only its beginning.
	HeaderPayloadLength = "F2-Payload-Length"
	HeaderPayloadSHA256 = "F2-Payload-Sha256"
	// HeaderDigest is the event.Digest of a message that never reached RAW.
	HeaderDigest = "F2-Digest"
	// HeaderRemoved is "1" on what stands for the newest letter of a subject that
	// somebody removed: it is no letter, and keeps the subject's count.
	HeaderRemoved = "F2-Removed"
)

// unknown stands for a MAC that is not known.
const unknown = "unknown"

// MaxPayload is how many bytes of a payload that never reached RAW a letter keeps.
const MaxPayload = 4096

// Letter is a refused message, or one refused data point of a message.
type Letter struct {
	Stage    string    // bridge, decoder or writer
	Reason   string    // a word of a bounded set in snake_case: it is a subject token and a metric's label
	Detail   string    // what an operator needs to act; never payload contents
	MAC      topic.MAC // empty if it is not known
	Topic    string    // MQTT topic or NATS subject, any bytes
	ID       event.ID  // of the message in RAW; zero if it never reached RAW
	Payload  []byte    // of what never reached RAW, else nil
	Received time.Time // by the bridge
	Time     time.Time // of the refusal
	Replayed bool      // an operator had the message tried once more
	Times    uint64    // how many messages the letter stands for; 0 is one

	DataPointID     int32  // 0: the whole message, unless Part is set
	Part            bool   // the letter is of a part of the message only
	Decoded         int    // with Part: how many data points were decoded
	Member          string // with Part: names of the payload's members that were refused, quoted
	MetadataVersion string
	SQLState        string
}

// Subject is f2.dead.<stage>.<reason>.<mac>, with "unknown" for a MAC that
// is not known.
func (l *Letter) Subject() string {
	mac := string(l.MAC)
	if mac == "" {
		mac = unknown
	}
	return "f2.dead." + l.Stage + "." + l.Reason + "." + mac
}

// maxQuoted is how much of a topic or detail a header shows, in bytes. MQTT
// allows topics of 64 KiB, which is what the server allows all headers of a
// message together, and a letter that it refuses would be tried for ever.
const maxQuoted = 2048

// quote makes any bytes fit a header line: as they are if they are printable
// ASCII, else as a Go string literal without its quotes. What is too long ends
// in its length.
func quote(s string) string {
	length := len(s)
	if length > maxQuoted {
		s = s[:maxQuoted]
	}
	q := strconv.QuoteToASCII(s)
	q = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
	if length > maxQuoted {
		q += "... (" + strconv.Itoa(length) + " bytes)"
	}
	return q
}
