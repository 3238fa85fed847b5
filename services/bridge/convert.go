package bridge

import (
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// stage is the bridge's name in subjects and dead letters.
const stage = "bridge"

// convert gives the RAW message of an MQTT message, or the dead letter if its
// topic does not parse or its payload is too large.
func (b *Bridge) convert(name string, payload []byte, at time.Time) (*nats.Msg, *deadletter.Letter) {
	t, err := topic.Parse(name)
	if err != nil {
		reason := "bad_topic"
		if topicErr, ok := errors.AsType[*topic.Error](err); ok {
			reason = topicErr.Reason
		}
		mac, _ := topic.FindMAC(name)
		return nil, &deadletter.Letter{
			Stage: stage, Reason: reason, Detail: err.Error(), MAC: mac, Topic: name,
			ID: event.NewID(name, payload, at), Payload: payload, Received: at, Time: at,
		}
	}
	subject := t.RawSubject()
	id := event.NewID(subject, payload, at)
	if len(payload) > b.cfg.MaxPayload {
		return nil, &deadletter.Letter{
			Stage: stage, Reason: "payload_too_large",
			Detail: strconv.Itoa(len(payload)) + " bytes, the limit is " + strconv.Itoa(b.cfg.MaxPayload),
			MAC:    t.MAC, Topic: name, ID: id, Payload: payload, Received: at, Time: at,
		}
	}
	return &nats.Msg{
		Subject: subject,
		Header: nats.Header{
			jetstream.MsgIDHeader: {id.String()},
			event.HeaderReceived:  {at.UTC().Format(time.RFC3339Nano)},
		},
		Data: payload,
	}, nil
}
