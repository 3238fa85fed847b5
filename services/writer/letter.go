package writer

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// Reasons of dead letters.
const (
	reasonBadDecoded = "bad_decoded"
	reasonRefused    = "refused_by_database"
)

// notDecoded returns the letter of a message that is not a valid DECODED message. Its place
// in RAW is unknown, so the letter has the payload and names the place in DECODED.
func notDecoded(m jetstream.Msg, err error) deadletter.Letter {
	l := deadletter.Letter{
		Stage: stage, Reason: reasonBadDecoded, Topic: m.Subject(), MAC: macOf(m), Payload: m.Data(), Time: time.Now(),
		Detail: "not a DECODED message" + position(err),
	}
	if meta, err := m.Metadata(); err == nil {
		l.Received = meta.Timestamp
		l.Detail = fmt.Sprintf("message %d of %s is %s", meta.Sequence.Stream, stream.Decoded, l.Detail)
	}
	return l
}

// position returns where JSON or the subject is wrong. The text of the error itself may quote contents.
func position(err error) string {
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Sprintf(": bad JSON at byte %d", syntactic.ByteOffset)
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		return fmt.Sprintf(": wrong type at %q", semantic.JSONPointer)
	}
	if place, ok := errors.AsType[*topic.Error](err); ok {
		return ": bad subject: " + place.Reason
	}
	return ""
}

// refusal returns the letter of a message whose rows PostgreSQL does not accept.
func refusal(m jetstream.Msg, detail, sqlState string) deadletter.Letter {
	l := deadletter.Letter{
		Stage: stage, Reason: reasonRefused, Topic: m.Subject(), MAC: macOf(m), Time: time.Now(),
		Detail: detail, SQLState: sqlState, Replayed: replaces(m),
	}
	var d event.Decoded
	if err := event.ParseDecoded(m.Subject(), m.Data(), &d); err == nil {
		l.ID, l.Received, l.MetadataVersion = d.ID, d.Received, d.MetadataVersion
	}
	return l
}

// macOf returns "" if the subject does not parse.
func macOf(m jetstream.Msg) topic.MAC {
	t, err := topic.ParseSubject(m.Subject())
	if err != nil {
		return ""
	}
	return t.MAC
}

// replaces reports whether the message was decoded again for an operator.
func replaces(m jetstream.Msg) bool { return m.Headers().Get(event.HeaderReplace) != "" }
