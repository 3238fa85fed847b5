package writer

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// letter makes the dead letter of a DECODED message.
func letter(m jetstream.Msg, reason, detail string) deadletter.Letter {
	l := deadletter.Letter{
		Stage: stage, Reason: reason, Detail: detail, Topic: m.Subject(), Payload: m.Data(), Time: time.Now(),
	}
	if t, err := topic.ParseSubject(m.Subject()); err == nil {
		l.MAC = t.MAC
	}
	var d event.Decoded
	if err := event.ParseDecoded(m.Data(), &d); err == nil {
		l.ID, l.Received, l.MetadataVersion = d.ID, d.Received, d.MetadataVersion
		return l
	}
	if meta, err := m.Metadata(); err == nil {
		l.Received = meta.Timestamp
	}
	l.ID = event.NewID(m.Subject(), m.Data(), l.Received)
	return l
}
