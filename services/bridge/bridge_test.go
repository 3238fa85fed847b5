package bridge

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// TestMain runs the tests. In the process that TestKilledProcess kills, it runs a bridge.
func TestMain(m *testing.M) {
	if url := os.Getenv(processVariable); url != "" {
		runUntilKilled(url)
	}
	// A client that is cut off for good sleeps for a while before it sees that.
	const client = "github.com/eclipse/paho%2emqtt%2egolang.(*client)"
	goleak.VerifyTestMain(m, append(natsservertest.Leftovers(),
		goleak.IgnoreAnyFunction(client+".reconnect"), goleak.IgnoreAnyFunction(client+".Disconnect.func1"),
		goleak.IgnoreAnyFunction(client+".Connect.func1"))...)
}

var moment = time.Date(2026, 7, 1, 14, 0, 0, 123456789, time.FixedZone("", 7200))

const (
	sensor        = "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1"
	sensorSubject = "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1"
)

func testConfig() Config {
	return Config{
		URL: "tcp://127.0.0.1:1", ClientID: "test", Filter: "#", Batch: 1000, MaxPayload: 64,
		CommandMaxAge: 30 * time.Second, DrainTimeout: time.Second, Inflight: 8000, InflightBytes: 64 << 20,
	}
}

func newBridge(tb testing.TB) *Bridge {
	tb.Helper()
	b, err := New(testConfig(), secret.Login{}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(tb, err)
	return b
}

// sent is a message as paho passes it to the handler.
type sent struct {
	mqtt.Message
	topic    string
	payload  []byte
	id       uint16
	dup      bool
	retained bool
}

func (s *sent) Topic() string     { return s.topic }
func (s *sent) Payload() []byte   { return s.payload }
func (s *sent) MessageID() uint16 { return s.id }
func (s *sent) Duplicate() bool   { return s.dup }
func (s *sent) Retained() bool    { return s.retained }

// convert returns what a message becomes that is alone in its batch.
func convert(b *Bridge, name string, payload []byte) (*nats.Msg, *deadletter.Letter) {
	b.window = newWindow(b.cfg.Inflight)
	s := b.sort([]arrival{{Message: &sent{topic: name, payload: payload, id: 7}, at: moment}})
	if len(s.letters) > 0 {
		return nil, &s.letters[0]
	}
	return s.raw[0], nil
}

// TestConvert: all spellings of a component become one subject, and other topics become dead
// letters.
func TestConvert(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	body := []byte(`{"timestamp":"2026-07-01 12:00:00","data":"01 03"}`)
	for name, want := range map[string]string{
		sensor: sensorSubject,
		"tele/f2-E4FD45F654BE/sensor-mode/1/sensor-1":                          sensorSubject,
		"tele/f2-e4-fd-45-f6-54-be/sensor-mode/J1/sensor-1":                    sensorSubject,
		"stat/f2-e4:fd:45:f6:54:be/access-control-mode/J3/door-sensors":        "f2.raw.stat.e4fd45f654be.access-control-mode.3.door-sensors",
		"cmnd/f2-e4fd45f654be/access-control-mode/J3/reader-1/success":         "f2.raw.cmnd.e4fd45f654be.access-control-mode.3.reader-1.success",
		"tele/f2-e4fd45f654be/sensor-mode/J5/sensor-1":                         "!bad_connector e4fd45f654be",
		"tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1/a":                       "!bad_verb e4fd45f654be",
		"tele/f2-e4fd45f654be/sensor-mode/J1/" + strings.Repeat("s", 1<<16-36): "!bad_component e4fd45f654be",
		"tele/f2-e4fd45f654be/sensor-mode/J1/>":                                "!bad_component e4fd45f654be",
		"tele/f2-e4fd45f654be":                                                 "!bad_levels e4fd45f654be",
		"tele/f2-nobody/sensor-mode/J1/sensor-1":                               "!bad_mac unknown",
		"secrets/f2-e4fd45f654be/a/b/c":                                        "!bad_root e4fd45f654be",
		"\x00\r\n":                                                             "!bad_levels unknown",
		"":                                                                     "!bad_levels unknown",
	} {
		m, letter := convert(b, name, body)
		if refusal, ok := strings.CutPrefix(want, "!"); ok {
			require.NotNil(t, letter, "%.60q", name)
			reason, mac, _ := strings.Cut(refusal, " ")
			assert.Nil(t, m)
			assert.Equal(t, "f2.dead.bridge."+reason+"."+mac, letter.Subject())
			assert.Equal(t, name, letter.Topic)
			assert.Equal(t, body, letter.Payload)
			continue
		}
		require.Nil(t, letter, name)
		header := nats.Header{"F2-Received": {"2026-07-01T12:00:00.123456789Z"}, "F2-Packet-Id": {"7"}}
		if name != sensor && !strings.HasPrefix(name, "cmnd") {
			header["F2-Topic"] = []string{name} // not the canonical spelling
		}
		assert.Equal(t, &nats.Msg{Subject: want, Data: body, Header: header}, m)
	}
}

// TestPayloadLimit: the longest payload is stored, and one that is a byte longer is not.
func TestPayloadLimit(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	for length, fits := range map[int]bool{0: true, 63: true, 64: true, 65: false, 1 << 20: false} {
		body := bytes.Repeat([]byte("x"), length)
		m, letter := convert(b, sensor, body)
		require.Equal(t, fits, m != nil, "%d bytes", length)
		require.Equal(t, !fits, letter != nil)
		if fits {
			assert.Equal(t, body, m.Data)
			continue
		}
		assert.Equal(t, "f2.dead.bridge.payload_too_large.e4fd45f654be", letter.Subject())
		assert.Zero(t, letter.ID, "it has no place in RAW")
		assert.Equal(t, body, letter.Payload, "it can be replayed")
	}
}

// requireSubject fails on a subject that NATS would not store or would route elsewhere.
func requireSubject(t *testing.T, subject string, tokens ...int) {
	t.Helper()
	for _, c := range []byte(subject) {
		require.True(t, '!' <= c && c <= '~' && c != '*' && c != '>', "%q", subject)
	}
	list := strings.Split(subject, ".")
	require.Contains(t, tokens, len(list), subject)
	require.NotContains(t, list, "", subject)
}

// FuzzConvert: every message goes to exactly one place, and NATS accepts it.
func FuzzConvert(f *testing.F) {
	for _, name := range []string{
		sensor, "cmnd/f2-E4-FD-45-F6-54-BE/access-control-mode/4/reader-99/success", "stat/f2-e4:fd:45:f6:54:be/alarm-mode/0/siren-0",
		"tele/f2-e4fd45f654be/+/#/>", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1.*", "tele/f2-e4fd45f654be/sensor mode/J1/sensor-1",
		"tele/f2-\x00\r\n\xff/sensor-mode/J1/sensor-1", "f2.raw.>", "$SYS/broker", "////", "",
	} {
		f.Add(name, []byte(`{"timestamp":"2026-07-01 12:00:00","data":"01"}`))
		f.Add(name, []byte(nil))
		f.Add(name, bytes.Repeat([]byte{0xff}, 65))
	}
	b := newBridge(f)
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		m, letter := convert(b, name, body)
		require.NotEqual(t, m == nil, letter == nil, "exactly one of the two")
		if letter != nil {
			requireSubject(t, letter.Subject(), 5)
			require.Equal(t, name, letter.Topic)
			require.Equal(t, body, letter.Payload)
			return
		}
		require.LessOrEqual(t, len(body), b.cfg.MaxPayload)
		require.Equal(t, body, m.Data)
		place, err := topic.ParseSubject(m.Subject)
		require.NoError(t, err)
		require.Equal(t, m.Subject, place.RawSubject())
		tokens := 7
		if place.Verb != "" {
			tokens = 8
		}
		requireSubject(t, m.Subject, tokens)
		require.NotContains(t, m.Header, jetstream.MsgIDHeader)
	})
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"no URL":                  func(c *Config) { c.URL = "" },
		"no client id":            func(c *Config) { c.ClientID = "" },
		"no filter":               func(c *Config) { c.Filter = "" },
		"no batch":                func(c *Config) { c.Batch = 0 },
		"batch over the limit":    func(c *Config) { c.Batch = 1001 },
		"negative linger":         func(c *Config) { c.Linger = -1 },
		"no time to drain":        func(c *Config) { c.DrainTimeout = 0 },
		"no age of commands":      func(c *Config) { c.CommandMaxAge = 0 },
		"commands live too long":  func(c *Config) { c.CommandMaxAge = 3 * time.Minute },
		"no payload":              func(c *Config) { c.MaxPayload = 0 },
		"no inflight":             func(c *Config) { c.Inflight = 0 },
		"inflight over the limit": func(c *Config) { c.Inflight = 1<<14 + 1 },
		"no inflight bytes":       func(c *Config) { c.InflightBytes = 1 },
		"payloads over the limit": func(c *Config) { c.MaxPayload = 1<<20 + 1 },
	} {
		c := testConfig()
		require.NoError(t, c.Validate(), "the control")
		spoil(&c)
		require.Error(t, c.Validate(), name)
		_, err := New(c, secret.Login{}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		require.Error(t, err, name)
	}
}
