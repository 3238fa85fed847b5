// Package deadletter gives the form of a message on the DEAD_LETTER stream:
// the payload exactly as it came, so that it can be replayed, and headers that
// say where, why and when it was refused.
package deadletter

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// Stream is the stream that takes dead letters.
const Stream = "DEAD_LETTER"

// Headers of a dead letter, beside those of package event.
const (
	HeaderStage           = "F2-Stage"
	HeaderReason          = "F2-Reason"
	HeaderDetail          = "F2-Detail"
	HeaderTopic           = "F2-Topic"
	HeaderTime            = "F2-Time"
	HeaderDataPoint       = "F2-Datapoint-Id"
	HeaderMetadataVersion = "F2-Metadata-Version"
	HeaderSQLState        = "F2-Sqlstate"
	// HeaderDecoded stands on the letter of one data point: how many others of
	// the message were decoded. With 0 there is no DECODED message.
	HeaderDecoded = "F2-Decoded"
)

// Letter is a refused message, or one refused data point of a message.
type Letter struct {
	Stage    string    // bridge, decoder or writer
	Reason   string    // a word of a bounded set in snake_case: it is a subject token and a metric's label
	Detail   string    // what an operator needs to act; never payload contents
	MAC      topic.MAC // empty if it cannot be told
	Topic    string    // MQTT topic or NATS subject, any bytes
	ID       event.ID
	Payload  []byte
	Received time.Time // by the bridge
	Time     time.Time // of the refusal

	DataPointID     int32 // 0: the whole message, unless Part is set
	Part            bool  // the letter is of a part of the message only
	Decoded         int   // with Part: how many data points were decoded
	MetadataVersion string
	SQLState        string
}

// Subject is f2.dead.<stage>.<reason>.<mac>, with "unknown" for a MAC that
// cannot be told.
func (l *Letter) Subject() string {
	mac := string(l.MAC)
	if mac == "" {
		mac = "unknown"
	}
	return "f2.dead." + l.Stage + "." + l.Reason + "." + mac
}

// Msg is the letter as a message. Its Nats-Msg-Id makes a redelivered letter
// one letter.
func (l *Letter) Msg() *nats.Msg {
	id := l.ID.String()
	m := nats.NewMsg(l.Subject())
	m.Data = l.Payload
	set := func(key, value string) {
		if value != "" {
			m.Header[key] = []string{value}
		}
	}
	set(jetstream.MsgIDHeader, strings.Join([]string{id, l.Stage, l.Reason, strconv.Itoa(int(l.DataPointID))}, "/"))
	set(event.HeaderID, id)
	set(event.HeaderReceived, l.Received.UTC().Format(time.RFC3339Nano))
	set(HeaderStage, l.Stage)
	set(HeaderReason, l.Reason)
	set(HeaderDetail, quote(l.Detail))
	set(HeaderTopic, quote(l.Topic))
	set(HeaderTime, l.Time.UTC().Format(time.RFC3339Nano))
	if l.DataPointID != 0 {
		set(HeaderDataPoint, strconv.Itoa(int(l.DataPointID)))
	}
	if l.Part {
		set(HeaderDecoded, strconv.Itoa(l.Decoded))
	}
	set(HeaderMetadataVersion, l.MetadataVersion)
	set(HeaderSQLState, l.SQLState)
	return m
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
