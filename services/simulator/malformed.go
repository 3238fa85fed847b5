package simulator

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// malformedMessage is a message that a broker accepts from a controller, since its topic
// is below the controller's own MAC, and that cannot be decoded: it must become a dead
// letter.
//
// Messages that never reach a subscriber are left out: Mosquitto closes the connection on
// a topic that is not UTF-8 or contains NUL, other control characters, '+' or '#', and on
// packets above its max_packet_size.
type malformedMessage struct {
	class int // index into classes
	topic string
	body  []byte
}

// newMalformed returns the n-th malformed message for the controller with the MAC. It
// depends on the seed, n and the MAC alone, and no two are equal.
func newMalformed(seed uint64, n int64, mac topic.MAC) malformedMessage {
	i := int(n % int64(len(classes)))
	m := &maker{
		Rand:   rand.New(rand.NewPCG(seed, uint64(n))), //nolint:gosec // not for secrets
		mac:    mac,
		serial: fmt.Sprintf("%016x-%d", seed, n),
	}
	name, body := classes[i].make(m)
	return malformedMessage{class: i, topic: name, body: []byte(body)}
}

// class is one way in which a message is wrong.
type class struct {
	name string
	make func(m *maker) (name, body string)
}

// classes start with those whose topic is wrong and whose payload is valid. Messages
// take them in turn.
var classes = [...]class{
	{"topic_levels", badTopic((*maker).wrongLevels)},
	{"topic_mode", badTopic((*maker).wrongMode)},
	{"topic_connector", badTopic((*maker).wrongConnector)},
	{"topic_component", badTopic((*maker).wrongComponent)},
	{"topic_verb", badTopic((*maker).wrongVerb)},
	{"topic_wildcard", badTopic((*maker).wildcard)},
	{"topic_space", badTopic((*maker).space)},
	{"topic_not_ascii", badTopic((*maker).notASCII)},
	{"topic_long", badTopic((*maker).long)},
	{"json_truncated", badSensor((*maker).truncatedJSON)},
	{"json_trailing", badSensor((*maker).trailingJSON)},
	{"json_not_object", badSensor((*maker).notAnObject)},
	{"json_duplicate_name", badSensor((*maker).duplicateName)},
	{"json_deep", badSensor((*maker).deepJSON)},
	{"binary", badSensor((*maker).binary)},
	{"utf8_invalid", badSensor((*maker).invalidUTF8)},
	{"nul", badSensor((*maker).nul)},
	{"timestamp", badSensor((*maker).wrongTimestamp)},
	{"field_type", badSensor((*maker).wrongType)},
	{"data_missing", badSensor((*maker).missingData)},
	{"hex", badSensor((*maker).wrongHex)},
	{"frame_truncated", badSensor((*maker).truncatedFrame)},
	{"huge", badSensor((*maker).huge)},
	{"status", (*maker).wrongStatus},
	{"input", (*maker).wrongInput},
	{"reader_data", (*maker).longToken},
	{"unknown_sensor", (*maker).unknownSensor},
}

// maker makes one message.
type maker struct {
	*rand.Rand
	mac    topic.MAC
	serial string // in no other message
}

func (m *maker) pick(list ...string) string { return list[m.IntN(len(list))] }

// topic is a topic below the controller's own prefix.
func (m *maker) topic(rest string) string {
	return m.pick("tele", "stat") + "/f2-" + m.pick(string(m.mac), m.mac.Dashed()) + "/" + rest
}

// sensor is the topic of a sensor that exists.
func (m *maker) sensor() string { return m.topic("sensor-mode/J1/sensor-1") }

// sound is a valid payload. Its timestamp makes the message unique.
func (m *maker) sound() string {
	return `{"timestamp":"` + m.timestamp() + `","data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`
}

// timestamp is unique among the seed's messages: it counts microseconds.
func (m *maker) timestamp() string {
	_, digits, _ := strings.Cut(m.serial, "-")
	micros := strings.Repeat("0", max(0, 10-len(digits))) + digits
	return "2026-01-01 " + fmt.Sprintf("%02d:%02d", m.IntN(24), m.IntN(60)) + ":" +
		fmt.Sprintf("%02d", m.IntN(60)) + "." + micros[len(micros)-6:]
}

func badTopic(rest func(*maker) string) func(*maker) (string, string) {
	return func(m *maker) (string, string) { return m.topic(rest(m)), m.sound() }
}

func badSensor(body func(*maker) string) func(*maker) (string, string) {
	return func(m *maker) (string, string) { return m.sensor(), body(m) }
}
