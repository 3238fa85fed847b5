package mosquitto

import (
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// web is a user at the browsers' listener, with a page that it claims to come from.
func (b *bench) web(user, origin string) *mqtt.ClientOptions {
	options := b.options("wss://" + mqttHost(b.broker.WebSocketPort())).SetUsername(user).SetPassword(b.cfg.Users[user])
	if origin != "" {
		options.SetHTTPHeaders(http.Header{"Origin": {origin}})
	}
	return options
}

// TestPeopleCannotTakeOverASession has a person come by the bridge's client id at each
// listener. It has the right password, and the bridge's queue must outlast it.
func TestPeopleCannotTakeOverASession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Origins = []string{"https://console.example.org"}
	b.start()
	b.setDevices([]topic.MAC{device})
	b.absentBridge()
	b.publish("before")
	thief := func(options *mqtt.ClientOptions) *mqtt.ClientOptions {
		return options.SetClientID("bridge").SetCleanSession(false)
	}
	asService := b.options("tcp://" + b.broker.Address()).SetUsername("operator").SetPassword("operator password")
	assert.True(t, refused(thief(asService)), "1883 is for services alone")
	foreign := thief(b.web("operator", "https://elsewhere.example.org"))
	assert.True(t, refused(foreign), "a page of somebody else")
	for name, options := range map[string]*mqtt.ClientOptions{
		"tools": b.userOptions("operator"), "browsers": b.web("operator", ""),
		"a page of our own": b.web("operator", "https://127.0.0.1:3000"), "a page that is named": b.web("operator", "https://console.example.org"),
	} {
		client, arrived := listen(t, thief(options), "stat/#")
		wait(t, connectMQTT(t, b.deviceOptions(device)).Publish("stat/f2-e4fd45f654be/x", 1, false, "mark"))
		assert.Equal(t, []string{"stat/f2-e4fd45f654be/x=mark"}, until(t, arrived, "stat/f2-e4fd45f654be/x=mark"), name)
		client.Disconnect(100)
	}
	b.publish("last")
	assert.Len(t, b.queued("last"), 2, "the control: the bridge gets what is its own")
}

// TestServicesAreNoPeople has services at the people's listeners, and what they know.
func TestServicesAreNoPeople(t *testing.T) {
	t.Parallel()
	log := &lines{}
	b := newBench(t)
	b.cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	b.start()
	for _, user := range []string{"bridge", "registrar"} {
		people := b.options("tcp://" + b.broker.PeopleAddress()).SetUsername(user).SetPassword(b.cfg.Users[user])
		assert.True(t, refused(people), "%s at 1884", user)
		assert.True(t, refused(b.web(user, "")), "%s at 9001", user)
		assert.Contains(t, log.take(), `msg="login refused at the people's listener" server=mosquitto address=127.0.0.1:`)
		assert.False(t, refused(b.userOptions(user)), "%s at 1883", user)
	}
	assert.False(t, refused(b.userOptions("operator")))
	assert.False(t, refused(b.web("operator", "")))
}

// A person's session ends with its connection, by 3.1.1 and by 5.
func TestPeoplesSessionsEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	client, _ := listen(t, b.userOptions("operator").SetCleanSession(false), "tele/#")
	client.Disconnect(100)
	b.publish("while away")
	client, arrived := listen(t, b.userOptions("operator").SetCleanSession(false), "stat/#")
	defer client.Disconnect(100)
	wait(t, connectMQTT(t, b.deviceOptions(device)).Publish("stat/f2-e4fd45f654be/x", 1, false, "mark"))
	assert.Equal(t, []string{"stat/f2-e4fd45f654be/x=mark"}, until(t, arrived, "stat/f2-e4fd45f654be/x=mark"))
}

// TestAdmit changes of CONNECT what it has to and nothing else.
func TestAdmit(t *testing.T) {
	t.Parallel()
	body := func(level, flags byte, properties []byte, fields ...string) []byte {
		packet := field(nil, "MQTT")
		packet = append(packet, level, flags, 0, 60)
		if level == 5 {
			packet = appendProperties(packet, properties)
		}
		for _, text := range fields {
			packet = field(packet, text)
		}
		return packet
	}
	expiry, maximum := []byte{0x11, 0xff, 0xff, 0xff, 0xff}, []byte{0x21, 0, 9}
	user := append([]byte{0x26}, field(field(nil, "a"), "b")...)
	for name, c := range map[string]struct{ body, want []byte }{
		"3.1.1":     {body(4, 0xc0, nil, "id", "me", "secret"), body(4, 0xc2, nil, "id", "me", "secretkey")},
		"anonymous": {body(4, 0x02, nil, "id"), body(4, 0x02, nil, "id")},
		"a will":    {body(4, 0xc6, nil, "id", "topic", "will", "me", ""), body(4, 0xc6, nil, "id", "topic", "will", "me", "key")},
		"5": {
			body(5, 0xc0, append(append(append([]byte{}, maximum...), expiry...), user...), "id", "me", "secret"),
			body(5, 0xc2, append(append([]byte{}, maximum...), user...), "id", "me", "secretkey"),
		},
	} {
		got, err := admit(c.body, "key")
		require.NoError(t, err, name)
		assert.Equal(t, packet(0x10, c.want), got, name)
	}
	good := body(5, 0xc0, append(expiry, user...), "id", "me", "secret")
	for n := range good {
		_, err := admit(good[:n], "key")
		require.Error(t, err, "the first %d bytes", n)
	}
	for name, wrong := range map[string][]byte{
		"more":               append(good, 0),
		"another version":    body(6, 0xc0, nil, "id", "me", "secret"),
		"an unknown propery": body(5, 0xc0, []byte{0x7f, 0}, "id", "me", "secret"),
	} {
		_, err := admit(wrong, "key")
		require.Error(t, err, name)
	}
}

func FuzzAdmit(f *testing.F) {
	f.Add([]byte("\x00\x04MQTT\x05\xc2\x00\x00\x05\x11\x00\x00\x00\x01\x00\x00\x00\x02me\x00\x01x"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := admit(body, "key")
		if err != nil {
			return
		}
		read, err := readConnect(strings.NewReader(string(got)))
		require.NoError(t, err)
		again, err := admit(read, "")
		require.NoError(t, err, "what comes out is a CONNECT")
		require.Equal(t, got, again)
	})
}

// Whoever says nothing, or nonsense, is turned away.
func TestPeoplesListenersAreStrict(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	closed := func(said string) {
		conn, err := net.Dial("tcp", b.broker.PeopleAddress()) //nolint:noctx // loopback
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte(said))
		require.NoError(t, err)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
		require.Error(t, err)
		timeout, ok := err.(net.Error) //nolint:errorlint // what Read returns
		assert.False(t, ok && timeout.Timeout(), "%q stays connected", said)
	}
	closed("GET / HTTP/1.1\r\n\r\n")
	closed("\x10\xff\xff\xff\x7f")
	closed("\x10\x02\x00\x04")
	dialer := websocket.Dialer{TLSClientConfig: b.tls(), Subprotocols: []string{"mqtt"}}
	conn, _, err := dialer.DialContext(t.Context(), "wss://"+mqttHost(b.broker.WebSocketPort()), nil) //nolint:bodyclose // there is none
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.WriteMessage(websocket.TextMessage, []byte("hello")))
	_, _, err = conn.ReadMessage()
	require.Error(t, err)
	assert.False(t, refused(b.userOptions("operator")), "the control")
}
