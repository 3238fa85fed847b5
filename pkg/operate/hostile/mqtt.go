package hostile

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

const (
	// mqttWithin is longer than Mosquitto keeps a connection without CONNECT: 1.5 times the
	// keep-alive that it assumes, which is a minute, and one interval of its checks.
	mqttWithin = 110 * time.Second
	// webWithin is longer than our WebSocket listener waits for the upgrade and for CONNECT.
	webWithin = 30 * time.Second
)

// Packets of MQTT 3.1.1.
var (
	connect    = packet(0x10, field("MQTT")+"\x04\x02\x00\x3c"+field("any"))
	disconnect = packet(0xe0, "")
)

// Responses of a broker: none, or only CONNACK, which a reset may discard.
var (
	silence   = want(``)
	connected = want(`(\x20\x02\x00\x00)?`)
)

func packet(kind byte, body string) string {
	return string(binary.AppendUvarint([]byte{kind}, uint64(len(body)))) + body
}

func field(text string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(text)))) + text //nolint:gosec // short
}

// publish is at QoS 1.
func publish(topic string, id byte, payload string) string {
	return packet(0x32, field(topic)+"\x00"+string([]byte{id})+payload)
}

// storm is many packets of many filters that the client may not read.
func storm() string {
	const packets, filters = 40, 200 // no packet identifier is a / in the response
	var all strings.Builder
	for id := range packets {
		var body strings.Builder
		body.WriteString("\x00" + string([]byte{byte(id + 1)}))
		for n := range filters {
			body.WriteString(field(fmt.Sprintf("tele/+/%d/%d/#", id, n)) + "\x01")
		}
		body.WriteString(field("#") + "\x01")
		all.WriteString(packet(0x82, body.String()))
	}
	return all.String()
}

// MQTT lists attacks on MQTT over mTLS. neighbor is another controller's MAC.
func MQTT(neighbor string) []Attack {
	attacks := []Attack{
		{Name: "half-open", plain: true},
		{Name: "slow TLS", plain: true, begin: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", drip: "a"},
		{Name: "malformed TLS", plain: true, begin: "\x16\x03\x01\xff\xff" + strings.Repeat("\xff", 1<<16), want: want(`.*`)},
		{Name: "no TLS", plain: true, begin: connect, want: want(`.*`)},
		{Name: "no certificate", begin: connect},
		{Name: "foreign certificate", begin: connect, shows: foreign},
		{Name: "no CONNECT", shows: own},
		{Name: "slow CONNECT", begin: "\x10\xff\x01", drip: "\x00", shows: own},
		{Name: "CONNECT of 256 MiB", Oversized: true, begin: "\x10\xff\xff\xff\x7f" + strings.Repeat("a", large), shows: own},
		{Name: "reserved packet", begin: "\xf0\x00", shows: own},
		{Name: "remaining length without end", begin: "\x10\xff\xff\xff\xff\xff\xff\x7f", shows: own},
		{Name: "another protocol", begin: packet(0x10, field("MQXX")+"\x04\x02\x00\x3c"+field("any")), shows: own, want: want(`(\x20\x02\x00\x01)?`)},
		{Name: "second CONNECT", begin: connect + connect, shows: own, want: connected},
		{Name: "PUBLISH at QoS 3", begin: connect + packet(0x36, field("tele/x")+"\x00\x01x"), shows: own, want: connected},
		{Name: "PUBLISH to a filter", begin: connect + publish("tele/#", 1, "x"), shows: own, want: connected},
		{Name: "PUBLISH of 2 MiB", Oversized: true, begin: connect + publish("tele/x", 1, strings.Repeat("a", 2<<20)), shows: own, want: connected},
		// Acknowledged and dropped: in MQTT 3.1.1 the only other response is to close.
		{
			Name: "PUBLISH for a neighbor", shows: own, want: want(`\x20\x02\x00\x00(\x40\x02\x00[\x01\x02])*`),
			begin: connect + publish("tele/f2-"+neighbor+"/alarm-mode/J4/motion-sensor-1", 1, `{"status":true}`) +
				publish("$SYS/broker/log/N", 2, "x") + disconnect,
		},
		// Granted, but nothing is delivered.
		{Name: "subscribe storm", begin: connect + storm() + disconnect, shows: own, want: want(`\x20\x02\x00\x00\x90[^/]*`)},
		{Name: "takeover of itself", begin: connect, again: connect + disconnect, shows: own, want: connected},
	}
	for i := range attacks {
		attacks[i].Within = mqttWithin
		if attacks[i].want == nil {
			attacks[i].want = silence
		}
	}
	return attacks
}

// upgrade is a request for MQTT over WebSocket.
func upgrade(header string) string {
	return "GET / HTTP/1.1\r\nHost: mesh\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n" + header + "\r\n"
}

// Kinds of frames, each the last of its message.
const binaryFrame, textFrame, pingFrame = 0x82, 0x81, 0x89

// frame has a header that announces a number of bytes, masked with zeros, and data.
func frame(kind byte, announced int, data string) string {
	header := binary.BigEndian.AppendUint64([]byte{kind, 0x80 | 127}, uint64(announced)) //nolint:gosec // positive
	if announced < 126 {
		header = []byte{kind, 0x80 | byte(announced)} //nolint:gosec // less than 126
	}
	return string(header) + "\x00\x00\x00\x00" + data
}

// WebSocket lists attacks on MQTT over WebSocket, TLS and passwords.
func WebSocket() []Attack {
	// The responses that accept and refuse a program.
	upgraded, denied := `HTTP/1\.1 101.*\r\n\r\n`, `(\x82\x04\x20\x02\x00[\x04\x05])?`
	guess := packet(0x10, field("MQTT")+"\x04\xc2\x00\x3c"+field("any")+field("operator")+field("guess"))
	say := func(kind byte, data string) string { return frame(kind, len(data), data) }
	attacks := []Attack{
		{Name: "half-open", plain: true},
		{Name: "slow TLS", plain: true, begin: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", drip: "a", want: want(`.*`)},
		{Name: "malformed TLS", plain: true, begin: "\x16\x03\x01\xff\xff" + strings.Repeat("\xff", 1<<16), want: want(`.*`)},
		{Name: "no TLS", plain: true, begin: upgrade(""), want: httpRefusal},
		{Name: "no upgrade", begin: "GET / HTTP/1.1\r\nHost: mesh\r\n\r\n", want: httpRefusal},
		{Name: "MQTT without WebSocket", begin: connect + "\r\n\r\n", want: httpRefusal},
		{Name: "slow upgrade", begin: "GET / HTTP/1.1\r\nHost: mesh\r\n", drip: "X-Slow: 1\r\n", want: httpRefusal},
		{Name: "large upgrade", Oversized: true, begin: upgrade("X-Large: " + strings.Repeat("a", large)), want: httpRefusal},
		{Name: "foreign origin", begin: upgrade("Origin: https://elsewhere.example\r\nConnection: close\r\n"), want: want(`HTTP/1\.1 403.*`)},
		{Name: "frames before the upgrade", begin: upgrade("") + say(binaryFrame, guess)},
		{Name: "no CONNECT", begin: upgrade("")},
		{Name: "slow frame", begin: upgrade(""), then: frame(binaryFrame, 200, "\x10\xc5\x01"), drip: "\x00"},
		{Name: "frame of a TiB", Oversized: true, begin: upgrade(""), then: frame(binaryFrame, 1<<40, "\x10\xff\xff\xff\x7f"+strings.Repeat("a", large))},
		{Name: "text frame", begin: upgrade(""), then: say(textFrame, connect)},
		{Name: "pings without end", begin: upgrade(""), then: strings.Repeat(frame(pingFrame, 4, "ping"), 10_000), want: want(upgraded + `(\x8a\x04ping)*.*`)},
		{Name: "malformed packet", begin: upgrade(""), then: say(binaryFrame, "\xf0\x00")},
		{Name: "wrong password", begin: upgrade(""), then: say(binaryFrame, guess), want: want(upgraded + denied + `(\x88.*)?`)},
		{Name: "no password", begin: upgrade(""), then: say(binaryFrame, connect), want: want(upgraded + denied + `(\x88.*)?`)},
	}
	for i := range attacks {
		attacks[i].Within = webWithin
		if attacks[i].want == nil {
			attacks[i].want = want(`(` + upgraded + `(\x88.*)?)?`)
		}
	}
	return attacks
}
