package bridge

import (
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// stage is the bridge's name in subjects and dead letters.
const stage = stream.StageBridge

// read parses a message's topic. It returns a dead letter if the topic is invalid or the
// payload too large.
func (b *Bridge) read(a *arrival) (topic.Topic, *deadletter.Letter) {
	name := a.Topic()
	t, err := topic.Parse(name)
	if err != nil {
		reason := "bad_topic"
		if topicErr, ok := errors.AsType[*topic.Error](err); ok {
			reason = topicErr.Reason
		}
		t.MAC, _ = topic.FindMAC(name)
		return t, refusal(t.MAC, reason, err.Error(), a)
	}
	if len(a.Payload()) > b.cfg.MaxPayload {
		return t, refusal(t.MAC, "payload_too_large",
			strconv.Itoa(len(a.Payload()))+" bytes; the limit is "+strconv.Itoa(b.cfg.MaxPayload), a)
	}
	return t, nil
}

func refusal(mac topic.MAC, reason, detail string, a *arrival) *deadletter.Letter {
	return &deadletter.Letter{
		Stage: stage, Reason: reason, Detail: detail, MAC: mac, Topic: a.Topic(),
		Payload: a.Payload(), Received: a.at, Time: a.at,
	}
}

// rawMessage returns the message for RAW. subject is t's.
func rawMessage(t topic.Topic, subject string, a *arrival, received time.Time, v verdict) *nats.Msg {
	header := nats.Header{event.HeaderReceived: {received.UTC().Format(time.RFC3339Nano)}}
	if id := a.MessageID(); id != 0 {
		header[event.HeaderPacketID] = []string{strconv.Itoa(int(id))}
	}
	if name := a.Topic(); name != t.MQTT() {
		header[event.HeaderTopic] = []string{name}
	}
	if v == repeat {
		header[event.HeaderRepeat] = []string{"1"}
	}
	return &nats.Msg{Subject: subject, Header: header, Data: a.Payload()}
}
