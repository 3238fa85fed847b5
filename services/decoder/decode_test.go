package decoder

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/payload"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// contract is the frame of the contract with the fleet: 25.52 °C, 50 %, 700 ppm.
const contract = "01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"

const mac topic.MAC = "e4fd45f654be"

var (
	received = time.Date(2026, 7, 1, 12, 0, 1, 123456789, time.UTC)
	refused  = received.Add(time.Second)
)

// point is a data point's metadata.
type point struct {
	label          string
	offset, length int32
	encoding       string
	decimals       int32
	unit           string
}

var environment = []point{
	{"Temperature", 3, 2, "Int16", 2, "°C"},
	{"Humidity", 5, 2, "Uint16", 2, "%"},
	{"CO2", 7, 2, "Uint16", 0, "ppm"},
}

// newController is controller 7 with the points on connector 1 as sensor-1, a
// device without data points as sensor-2, and the empty connector 2.
func newController(points ...point) *controller {
	c := &controller{id: 7, version: "00ff", pins: map[pin]*sensor{}, numbers: map[int]bool{}}
	for i, p := range points {
		c.add(&row{
			controller: 7, connector: new(int32(1)), position: new(int32(1)), device: new(int32(8)), deviceName: new("Hall"),
			dataPoint: new(int32(i + 1)), label: &p.label, offset: &p.offset, length: &p.length, encoding: &p.encoding, decimal: &p.decimals, suffix: &p.unit,
		})
	}
	c.add(&row{controller: 7, connector: new(int32(1)), position: new(int32(2)), device: new(int32(9)), deviceName: new("bare")})
	c.add(&row{controller: 7, connector: new(int32(1)), position: new(int32(3))})
	c.add(&row{controller: 7, connector: new(int32(2))})
	return c
}

// decodeBody decodes a message of a place such as "tele sensor-mode.1.sensor-1".
func decodeBody(t *testing.T, place, body string, c *controller) (bool, event.Decoded, []deadletter.Letter) {
	t.Helper()
	root, rest, _ := strings.Cut(place, " ")
	m := message{subject: "f2.raw." + root + "." + string(mac) + "." + rest, id: event.ID{1}, received: received, body: []byte(body)}
	var err error
	m.topic, err = topic.ParseSubject(m.subject)
	require.NoError(t, err)
	var parser payload.Parser
	var d event.Decoded
	ok, dead := decode(&m, &parser, c, refused, &d)
	version := ""
	if c != nil {
		version = c.version
	}
	for i := range dead {
		l := &dead[i]
		assert.Equal(t, deadletter.Letter{
			Stage: "decoder", Reason: l.Reason, Detail: l.Detail, MAC: mac, Topic: m.subject, ID: m.id, Payload: m.body, Received: received, Time: refused,
			DataPointID: l.DataPointID, Part: l.Part, Decoded: l.Decoded, MetadataVersion: version,
		}, *l)
		assert.NotEmpty(t, l.Detail)
	}
	return ok, d, dead
}

func frameBody(frame string) string {
	return `{"timestamp":"2026-07-01 12:00:00.1234567","data":"` + frame + `"}`
}

// outline is values or letters in short.
func outline(d *event.Decoded, dead []deadletter.Letter) string {
	var b strings.Builder
	for i := range d.Values {
		fmt.Fprintf(&b, "%d=%s ", d.Values[i].DataPointID, d.Values[i].Format())
	}
	for _, l := range dead {
		fmt.Fprintf(&b, "!%s", l.Reason)
		if l.DataPointID != 0 {
			fmt.Fprintf(&b, "@%d", l.DataPointID)
		}
		if l.Part {
			fmt.Fprintf(&b, " of a message with %d", l.Decoded)
		}
		b.WriteString(" ")
	}
	return strings.TrimSpace(b.String())
}

func TestContractFrame(t *testing.T) {
	t.Parallel()
	ok, d, dead := decodeBody(t, "tele sensor-mode.1.sensor-1", frameBody(contract), newController(environment...))
	require.True(t, ok)
	require.Empty(t, dead)
	assert.Equal(t, event.Decoded{
		ID: event.ID{1}, Time: time.Date(2026, 7, 1, 12, 0, 0, 123456000, time.UTC), Received: received,
		Root: "tele", MAC: string(mac), ControllerID: 7, Mode: "sensor-mode", Connector: 1, Component: "sensor-1",
		DeviceID: 8, Device: "Hall", MetadataVersion: "00ff",
		Values: []event.Value{
			{DataPointID: 1, Label: "Temperature", Number: 25.52, Unit: "°C"},
			{DataPointID: 2, Label: "Humidity", Number: 50, Unit: "%"},
			{DataPointID: 3, Label: "CO2", Number: 700, Unit: "ppm"},
		},
	}, d, "with the time in the microseconds of the rows' key")
}

// TestSensor has readings that give values, letters, or both. A point that
// cannot be decoded takes no other with it.
func TestSensor(t *testing.T) {
	t.Parallel()
	whole := newController(environment...)
	nan := strings.ReplaceAll(contract, "09 F8 13 88", fmt.Sprintf("% X", []byte{0x7f, 0xc0, 0, 0}))
	with := func(p ...point) *controller { return newController(append(environment[:2:2], p...)...) }
	for _, test := range []struct {
		name, place, body string
		c                 *controller
		want              string
	}{
		{"the control", "tele sensor-mode.1.sensor-1", frameBody(contract), whole, "1=25.52 °C 2=50 % 3=700 ppm"},
		{"older firmware's root", "cmnd sensor-mode.1.sensor-1", frameBody(contract), whole, "1=25.52 °C 2=50 % 3=700 ppm"},
		{"frame ends before a point", "tele sensor-mode.1.sensor-1", frameBody("01 03 04 09 F8 13 88 02"), whole, "1=25.52 °C 2=50 % !out_of_range@3 of a message with 2"},
		{"frame ends before all", "tele sensor-mode.1.sensor-1", frameBody("01 03"), whole, "!out_of_range@1 of a message with 0 !out_of_range@2 of a message with 0 !out_of_range@3 of a message with 0"},
		{"point past every frame", "tele sensor-mode.1.sensor-1", frameBody(contract), with(point{"CO2", math.MaxInt32, 2, "Uint16", 0, ""}), "1=25.52 °C 2=50 % !out_of_range@3 of a message with 2"},
		{"unknown encoding", "tele sensor-mode.1.sensor-1", frameBody(contract), with(point{"CO2", 7, 2, "Uint17", 0, ""}), "1=25.52 °C 2=50 % !unknown_encoding@3 of a message with 2"},
		{"negative offset", "tele sensor-mode.1.sensor-1", frameBody(contract), with(point{"CO2", -1, 2, "Uint16", 0, ""}), "1=25.52 °C 2=50 % !bad_offset@3 of a message with 2"},
		{"length of another encoding", "tele sensor-mode.1.sensor-1", frameBody(contract), with(point{"CO2", 7, 3, "Uint16", 0, ""}), "1=25.52 °C 2=50 % !bad_length@3 of a message with 2"},
		{"not a number", "tele sensor-mode.1.sensor-1", frameBody(nan), newController(point{"T", 3, 4, "Float32", 0, ""}, environment[2]), "2=700 ppm !not_a_number@1 of a message with 1"},
		{"text", "tele sensor-mode.1.sensor-1", frameBody("01 03 02 4F 4B"), newController(point{"T", 3, 2, "ASCII", 0, ""}), `1="OK"`},
		{"numbers, labels in any case", "tele sensor-mode.1.sensor-1", `{"TEMPERATURE":1.5,"co2":2}`, whole, "1=1.5 °C 3=2 ppm"},
		{"an unknown label", "tele sensor-mode.1.sensor-1", `{"secret":1,"CO2":2,"other":3}`, whole, "3=2 ppm !unknown_label of a message with 1"},
		{"unknown labels only", "tele sensor-mode.1.sensor-1", `{"secret":1}`, whole, "!unknown_label of a message with 0"},
		{"unknown controller", "tele sensor-mode.1.sensor-1", frameBody(contract), nil, "!unknown_controller"},
		{"unknown connector", "tele sensor-mode.3.sensor-1", frameBody(contract), whole, "!unknown_connector"},
		{"unknown pin", "tele sensor-mode.1.sensor-4", frameBody(contract), whole, "!unknown_pin"},
		{"pin without a device", "tele sensor-mode.1.sensor-3", frameBody(contract), whole, "!unknown_pin"},
		{"connector without pins", "tele sensor-mode.2.sensor-1", frameBody(contract), whole, "!unknown_pin"},
		{"no data points", "tele sensor-mode.1.sensor-2", frameBody(contract), whole, "!no_data_points"},
		{"bad hex", "tele sensor-mode.1.sensor-1", frameBody("0x"), whole, "!bad_hex"},
		{"not JSON", "tele sensor-mode.1.sensor-1", "{", whole, "!bad_json"},
		{"not JSON, unknown controller", "tele sensor-mode.1.sensor-1", "{", nil, "!bad_json"},
		{"empty", "tele sensor-mode.1.sensor-1", "", whole, "!empty_payload"},
	} {
		ok, d, dead := decodeBody(t, test.place, test.body, test.c)
		assert.Equal(t, test.want, outline(&d, dead), test.name)
		assert.Equal(t, len(d.Values) > 0, ok, test.name)
		for _, l := range dead {
			assert.NotContains(t, l.Detail, "secret", "a letter's detail does not repeat the payload")
		}
	}
}

// TestEvents has each component but the sensor: it needs no pin.
func TestEvents(t *testing.T) {
	t.Parallel()
	c := newController(environment...)
	for _, test := range []struct{ place, body, state, verb string }{
		{"tele access-control-mode.3.door-sensors", `{"door-sensor-1":true, "n":1.50}`, `{"door-sensor-1":true,"n":1.50}`, ""},
		{"tele access-control-mode.3.exit-buttons", `{"exit-button-2":false}`, `{"exit-button-2":false}`, ""},
		{"stat access-control-mode.3.strike-1", `{"status":true}`, `{"status":true}`, ""},
		{"tele access-control-mode.3.reader-1", `{"data":"card"}`, `{"data":"card"}`, ""},
		{"stat alarm-mode.4.siren-1", `{"status":false}`, `{"status":false}`, ""},
		{"tele alarm-mode.4.motion-sensor-2", `{"status":true}`, `{"status":true}`, ""},
		{"cmnd alarm-mode.4.siren-1", ``, `{"request":"status"}`, ""},
		{"cmnd access-control-mode.3.reader-1.success", `1`, `{"success":1}`, "success"},
	} {
		ok, d, dead := decodeBody(t, test.place, test.body, c)
		require.True(t, ok, "%s %v", test.place, dead)
		require.Empty(t, dead)
		assert.Equal(t, test.state, string(d.State), test.place)
		assert.Equal(t, test.verb, d.Verb)
		assert.Zero(t, d.DeviceID)
		assert.Empty(t, d.Values)
		assert.Equal(t, received.Truncate(time.Microsecond), d.Time, "a payload without a time takes the bridge's")
		assert.Equal(t, received, d.Received)

		ok, d, dead = decodeBody(t, test.place, test.body, nil)
		assert.False(t, ok)
		assert.Equal(t, "!unknown_controller", outline(&d, dead), test.place)
	}
	_, d, dead := decodeBody(t, "tele alarm-mode.4.motion-sensor-2", `{"door-sensor-1":true}`, c)
	assert.Equal(t, "!missing_field", outline(&d, dead), "the control")
	_, d, _ = decodeBody(t, "tele alarm-mode.4.motion-sensor-2", `{"timestamp":"2026-07-01T14:00:00+02:00","status":true}`, c)
	assert.Equal(t, time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), d.Time, "the control: a payload's own time")
}

// TestShard has one controller's messages with one worker, which keeps them in
// order, and the controllers spread.
func TestShard(t *testing.T) {
	t.Parallel()
	const controllers = 1000
	for _, n := range []int{1, 2, 3, 16} {
		shares := make([]int, n)
		for i := range controllers {
			place := topic.Topic{Root: topic.Tele, MAC: topic.MAC(hex.EncodeToString([]byte{2, 0xf2, 0, 0, byte(i >> 8), byte(i)})), Mode: topic.SensorMode, Component: topic.Component{Kind: topic.Sensor}}
			first := shard(place.RawSubject(), n)
			for _, root := range []topic.Root{topic.Tele, topic.Stat, topic.Cmnd} {
				place.Root, place.Mode, place.Connector, place.Component.Kind = root, topic.AlarmMode, 99, topic.DoorSensors
				require.Equal(t, first, shard(place.RawSubject(), n))
			}
			shares[first]++
		}
		for _, share := range shares {
			assert.Greater(t, share, controllers/n/2, "%v", shares)
		}
	}
	assert.Zero(t, shard("f2.raw.tele.e4fd", 4), "somebody's own message")
}

func TestRecent(t *testing.T) {
	t.Parallel()
	var r recent
	size := uint64(len(r.sequences))
	assert.False(t, r.seen(5, 2), "never stored")
	r.mark(5)
	assert.True(t, r.seen(5, 2))
	assert.False(t, r.seen(5, 1), "a first delivery is new, whatever an earlier stream's 5 was")
	assert.False(t, r.seen(5+size, 2), "another of the same place")
	r.mark(5 + size)
	assert.False(t, r.seen(5, 2), "forgotten: it is decoded once more")
	assert.True(t, r.seen(5+size, 3))
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"no DSN":               func(c *Config) { c.DSN = "" },
		"no schema":            func(c *Config) { c.Schema = "" },
		"no TTL":               func(c *Config) { c.CacheTTL = 0 },
		"no unknown TTL":       func(c *Config) { c.CacheUnknownTTL = 0 },
		"no cache":             func(c *Config) { c.CacheControllers = 0 },
		"payload over NATS's":  func(c *Config) { c.MaxPayload = 1<<20 + 1 },
		"negative payload":     func(c *Config) { c.MaxPayload = -1 },
		"no batch":             func(c *Config) { c.Batch = 0 },
		"batch over the limit": func(c *Config) { c.Batch = 1001 },
		"negative workers":     func(c *Config) { c.Workers = -1 },
		"negative linger":      func(c *Config) { c.Linger = -1 },
		"no time to drain":     func(c *Config) { c.DrainTimeout = 0 },
		"unknown zone":         func(c *Config) { c.Zone = "Mars/Olympus" },
	} {
		c := testConfig()
		require.NoError(t, c.Validate(), "the control")
		spoil(&c)
		require.Error(t, c.Validate(), name)
	}
}

func testConfig() Config {
	return Config{
		DSN: "postgres://", Schema: "public", Zone: "UTC", CacheTTL: 600, CacheUnknownTTL: 30, CacheControllers: 100,
		Batch: 1000, DrainTimeout: time.Second,
	}
}
