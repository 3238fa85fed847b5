package decoder

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
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

// newController returns controller 7: the points are on connector 1 as sensor-1, sensor-2 has
// no data points, and connector 2 is empty.
func newController(points ...point) *controller {
	b := newBuilder()
	at := func(connector, number, pin, position, device, name string) row {
		return row{controller: "7", connector: &connector, number: &number, pin: &pin, position: &position, device: &device, deviceName: &name}
	}
	for i, p := range points {
		r := at("3", "1", "11", "1", "8", "Hall")
		id, offset, length, decimals := strconv.Itoa(i+1), strconv.Itoa(int(p.offset)), strconv.Itoa(int(p.length)), strconv.Itoa(int(p.decimals))
		r.dataPoint, r.label, r.offset, r.length, r.encoding, r.decimals, r.unit = &id, &p.label, &offset, &length, &p.encoding, &decimals, &p.unit
		b.add(&r)
	}
	bare := at("3", "1", "12", "2", "9", "bare")
	b.add(&bare)
	b.add(&row{controller: "7", connector: new("3"), number: new("1"), pin: new("13"), position: new("3")})
	b.add(&row{controller: "7", connector: new("4"), number: new("2")})
	c := b.build()
	c.version = "00ff"
	return c
}

// asConfigured returns the default settings.
func asConfigured() *settings {
	return &settings{members: newMemberMemory(10)}
}

// decodeBody decodes a message. place is like "tele sensor-mode.1.sensor-1".
func decodeBody(t *testing.T, place, body string, c *controller) (bool, event.Decoded, []deadletter.Letter) {
	t.Helper()
	out, d := decodeWith(t, place, body, c, asConfigured(), event.PlaceID(1, 1))
	return out.ok, d, out.dead
}

func decodeWith(t *testing.T, place, body string, c *controller, set *settings, id event.ID) (outcome, event.Decoded) {
	t.Helper()
	root, rest, _ := strings.Cut(place, " ")
	m := message{subject: "f2.raw." + root + "." + string(mac) + "." + rest, id: id, received: received, body: []byte(body)}
	var err error
	m.topic, err = topic.ParseSubject(m.subject)
	require.NoError(t, err)
	var parser payload.Parser
	var d event.Decoded
	out := decode(&m, &parser, c, set, refused, &d)
	version := ""
	if c != nil {
		version = c.version
	}
	seen := map[string]bool{}
	for i := range out.dead {
		l := &out.dead[i]
		assert.Equal(t, deadletter.Letter{
			Stage: "decoder", Reason: l.Reason, Detail: l.Detail, MAC: mac, Topic: m.subject, ID: m.id, Received: received, Time: refused,
			DataPointID: l.DataPointID, Part: l.Part, Decoded: l.Decoded, Member: l.Member, MetadataVersion: version,
		}, *l)
		assert.NotEmpty(t, l.Detail)
		assert.True(t, l.Part || l.Member == "" && l.DataPointID == 0 && len(out.dead) == 1, "one letter of a whole message")
		key := fmt.Sprint(l.Reason, l.DataPointID)
		assert.False(t, seen[key], "the recorder would take a second letter for the first: %s", key)
		seen[key] = true
	}
	return out, d
}

func frameBody(frame string) string {
	return `{"timestamp":"2026-07-01 12:00:00.1234567","data":"` + frame + `"}`
}

// outline returns values and letters in short form.
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
		ID: event.PlaceID(1, 1), Time: time.Date(2026, 7, 1, 12, 0, 0, 123456000, time.UTC), Received: received.Truncate(time.Microsecond),
		Root: "tele", MAC: string(mac), ControllerID: 7, Mode: "sensor-mode", Connector: 1, Component: "sensor-1",
		DeviceID: 8, Device: "Hall", MetadataVersion: "00ff",
		Values: []event.DataPoint{
			{DataPointID: 1, Label: "Temperature", Number: 25.52, Unit: "°C"},
			{DataPointID: 2, Label: "Humidity", Number: 50, Unit: "%"},
			{DataPointID: 3, Label: "CO2", Number: 700, Unit: "ppm"},
		},
	}, d, "with the time in the microseconds of the rows' key")
}

// TestSensor covers readings that give values, letters, or both. A point that cannot be
// decoded does not affect the others.
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
		{"response ends before a point", "tele sensor-mode.1.sensor-1", frameBody("01 03 04 09 F8 13 88 02"), whole, "1=25.52 °C 2=50 % !out_of_range@3 of a message with 2"},
		{"frame ends before all", "tele sensor-mode.1.sensor-1", frameBody("01 03"), whole, "!out_of_range@1 of a message with 0 !out_of_range@2 of a message with 0 !out_of_range@3 of a message with 0"},
		{"bytes end before a point", "tele sensor-mode.1.sensor-1", frameBody("AA 55 04 09 F8 13"), newController(environment[:2]...), "1=25.52 °C !out_of_range@2 of a message with 1"},
		{"byte count beyond the end", "tele sensor-mode.1.sensor-1", frameBody("01 03 0C 09 F8 13 88 02"), whole, "!short_answer"},
		{"Modbus exception", "tele sensor-mode.1.sensor-1", frameBody("01 83 02 C0 F1"), whole, "!modbus_exception"},
		{"Modbus exception beside an odd member", "tele sensor-mode.1.sensor-1", `{"data":"01 83 02 C0 F1","rssi":-60}`, whole, "!modbus_exception"},
		{"echoed request", "tele sensor-mode.1.sensor-1", frameBody("01 03 00 00 00 02 C4 0B"), whole, "!echoed_request"},
		{"shifted frame", "tele sensor-mode.1.sensor-1", frameBody("00 01 04 04 01 31 02 22 2A CE"), whole, "!shifted_frame"},
		{"bytes of another device", "tele sensor-mode.1.sensor-1", frameBody("12 83 FF 07"), newController(point{"T", 0, 2, "Uint16LE", 1, ""}, point{"U", 2, 2, "Int16", 0, ""}), "1=3355.4 2=-249"},
		{"point past every frame", "tele sensor-mode.1.sensor-1", frameBody(contract), with(point{"CO2", math.MaxInt32, 2, "Uint16", 0, ""}), "1=25.52 °C 2=50 % !out_of_range@3 of a message with 2"},
		{"unknown encoding", "tele sensor-mode.1.sensor-1", frameBody(contract), with(point{"CO2", 7, 2, "Uint17", 0, ""}), "1=25.52 °C 2=50 % !unknown_encoding@3 of a message with 2"},
		{"negative offset", "tele sensor-mode.1.sensor-1", frameBody(contract), with(point{"CO2", -1, 2, "Uint16", 0, ""}), "1=25.52 °C 2=50 % !bad_offset@3 of a message with 2"},
		{"length of another encoding", "tele sensor-mode.1.sensor-1", frameBody(contract), with(point{"CO2", 7, 3, "Uint16", 0, ""}), "1=25.52 °C 2=50 % !bad_length@3 of a message with 2"},
		{"not a number", "tele sensor-mode.1.sensor-1", frameBody(nan), newController(point{"T", 3, 4, "Float32", 0, ""}, environment[2]), "2=700 ppm !not_a_number@1 of a message with 1"},
		{"text", "tele sensor-mode.1.sensor-1", frameBody("01 03 02 4F 4B"), newController(point{"T", 3, 2, "ASCII", 0, ""}), `1="OK"`},
		{"numbers, labels in any case", "tele sensor-mode.1.sensor-1", `{"TEMPERATURE":1.5,"co2":2}`, whole, "1=1.5 °C 3=2 ppm"},
		{"an unknown label", "tele sensor-mode.1.sensor-1", `{"more":1,"CO2":2,"other":3}`, whole, "3=2 ppm !unknown_label of a message with 1"},
		{"an odd member", "tele sensor-mode.1.sensor-1", `{"humidity":null,"CO2":2}`, whole, "3=2 ppm !bad_field of a message with 1"},
		{"odd members of two reasons", "tele sensor-mode.1.sensor-1", `{"humidity":null,"CO2":2,"Temperature":1e999,"other":3}`, whole, "3=2 ppm !bad_field of a message with 1 !bad_number of a message with 1 !unknown_label of a message with 1"},
		{"an odd member of no data point", "tele sensor-mode.1.sensor-1", `{"battery":"OK","CO2":2}`, whole, "3=2 ppm !unknown_label of a message with 1"},
		{"odd members only", "tele sensor-mode.1.sensor-1", `{"humidity":null,"battery":"OK"}`, whole, "!bad_field"},
		{"a number beside the frame", "tele sensor-mode.1.sensor-1", `{"data":"` + contract + `","rssi":-60}`, whole, "1=25.52 °C 2=50 % 3=700 ppm !unknown_label of a message with 3"},
		{"a data point's number beside the frame", "tele sensor-mode.1.sensor-1", `{"data":"` + contract + `","CO2":1}`, whole, "1=25.52 °C 2=50 % 3=700 ppm !data_and_numbers of a message with 3"},
		{"no frame beside numbers", "tele sensor-mode.1.sensor-1", `{"data":"N/A","CO2":1}`, whole, "3=1 ppm !bad_hex of a message with 1"},
		{"a label of two data points", "tele sensor-mode.1.sensor-1", `{"temperature":5,"CO2":2}`, newController(environment[0], point{"temperature", 5, 2, "Uint16", 1, ""}, environment[2]), "3=2 ppm !ambiguous_label of a message with 1"},
		{"a label of two data points alone", "tele sensor-mode.1.sensor-1", `{"temperature":5}`, newController(environment[0], point{"temperature", 5, 2, "Uint16", 1, ""}), "!ambiguous_label of a message with 0"},
		{"a label of two data points in a frame", "tele sensor-mode.1.sensor-1", frameBody(contract), newController(environment[0], point{"temperature", 5, 2, "Uint16", 2, ""}), "1=25.52 °C 2=50"},
		{"unknown labels only", "tele sensor-mode.1.sensor-1", `{"other":1}`, whole, "!unknown_label of a message with 0"},
		{"unknown controller", "tele sensor-mode.1.sensor-1", frameBody(contract), nil, "!unknown_controller"},
		{"unknown connector", "tele sensor-mode.3.sensor-1", frameBody(contract), whole, "!unknown_connector"},
		{"unknown pin", "tele sensor-mode.1.sensor-4", frameBody(contract), whole, "!unknown_pin"},
		{"pin without a device", "tele sensor-mode.1.sensor-3", frameBody(contract), whole, "!unknown_pin"},
		{"connector without pins", "tele sensor-mode.2.sensor-1", frameBody(contract), whole, "!unknown_pin"},
		{"no data points", "tele sensor-mode.1.sensor-2", frameBody(contract), whole, "!no_data_points"},
		{"bad hex", "tele sensor-mode.1.sensor-1", frameBody("zz"), whole, "!bad_hex"},
		{"not JSON", "tele sensor-mode.1.sensor-1", "{", whole, "!bad_json"},
		{"not JSON, unknown controller", "tele sensor-mode.1.sensor-1", "{", nil, "!bad_json"},
		{"empty", "tele sensor-mode.1.sensor-1", "", whole, "!empty_payload"},
	} {
		ok, d, dead := decodeBody(t, test.place, test.body, test.c)
		assert.Equal(t, test.want, outline(&d, dead), test.name)
		assert.Equal(t, len(d.Values) > 0, ok, test.name)
	}
}

// TestEvents covers each component except the sensor. They need no pin.
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
		assert.Equal(t, d.Time, d.Received, "as exact as a row")

		ok, d, dead = decodeBody(t, test.place, test.body, nil)
		assert.False(t, ok)
		assert.Equal(t, "!unknown_controller", outline(&d, dead), test.place)
	}
	ok, d, dead := decodeBody(t, "tele access-control-mode.3.door-sensors", `{"door-sensor-1":true,"door-sensor-2":"open"}`, c)
	assert.True(t, ok)
	assert.Equal(t, "!bad_field of a message with 1", outline(&d, dead))
	assert.Equal(t, `{"door-sensor-1":true}`, string(d.State))
	_, d, dead = decodeBody(t, "tele alarm-mode.4.motion-sensor-2", `{"door-sensor-1":true}`, c)
	assert.Equal(t, "!missing_field", outline(&d, dead), "the control")
	_, d, _ = decodeBody(t, "tele alarm-mode.4.motion-sensor-2", `{"timestamp":"2026-07-01T14:00:00+02:00","status":true}`, c)
	assert.Equal(t, time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), d.Time, "the control: a payload's own time")
}

// TestDetails covers the details of letters, which operators act on.
func TestDetails(t *testing.T) {
	t.Parallel()
	const sensor1 = "tele sensor-mode.1.sensor-1"
	for _, test := range []struct {
		body           string
		points         []point
		detail, member string
	}{
		{frameBody(contract), []point{{"Voltage", 3, 4, "FLOAT32-IEEE", 0, ""}}, `data point 1 ("Voltage"): unknown encoding "FLOAT32-IEEE"; known: Int8, Uint8, Int16, Uint16, `, ""},
		{frameBody(contract), []point{{"Voltage", 3, 2, "Int32", 0, ""}}, `data point 1 ("Voltage"): "Length" is 2; Int32 takes 4`, ""},
		{frameBody("01 04 02 01 31 79 74"), []point{{"Humidity", 5, 2, "Uint16", 1, ""}}, `data point 1 ("Humidity"): beyond the response's byte count of 2 (bytes 3 to 4): bytes 5 to 6`, ""},
		{frameBody("AA BB CC"), []point{{"Humidity", 2, 2, "Uint16", 1, ""}}, `data point 1 ("Humidity"): beyond the frame's 3 bytes: bytes 2 to 3`, ""},
		{frameBody("01 83 02 C0 F1"), environment, `Modbus exception 2 (illegal data address) to function 3`, ""},
		{`{"co2":"secret","temperature":1}`, environment, `member "co2": a string, not a number`, `"co2"`},
		{`{"co2":"secret","humidity":null,"temperature":1}`, environment, `member "co2": a string, not a number; member "humidity": null, not a number`, `"co2", "humidity"`},
		{`{"model":"secret","battery":"secret","temperature":1}`, environment, `device 8 ("Hall") has no data point with the label "model", "battery"`, `"model", "battery"`},
		{`{"temperature":1}`, []point{environment[0], {"temperature", 5, 2, "Uint16", 1, ""}}, `member "temperature": ambiguous label: data points 1 and 2`, `"temperature"`},
		{`{"data":"01 03 secret"}`, environment, `member "data": not hex at character 7: a byte is two hex digits`, ""},
		{`{"temperature":1,`, environment, `the body ends within the JSON value, at byte 17`, ""},
		{`{"temperature":secret}`, environment, `not JSON at byte 15 of 22`, ""},
		{`{"timestamp":"secret","temperature":1}`, environment, `member "timestamp": not a time of the form YYYY-MM-DD HH:MM:SS[.ffffff] or RFC 3339`, ""},
		{`{"timestamp":1772359200,"temperature":1}`, environment, `member "timestamp": a number, not a string of YYYY-MM-DD`, ""},
	} {
		_, _, dead := decodeBody(t, sensor1, test.body, newController(test.points...))
		require.Len(t, dead, 1, test.body)
		assert.Contains(t, dead[0].Detail, test.detail)
		assert.Equal(t, test.member, dead[0].Member, test.body)
		assert.NotContains(t, dead[0].Detail, "secret", "a letter's detail does not repeat the payload's values")
	}
}

func TestPlausible(t *testing.T) {
	t.Parallel()
	const ahead, late = 24 * time.Hour, 2160 * time.Hour
	whole := received.Truncate(time.Microsecond)
	for name, test := range map[string]struct {
		claimed time.Time
		kept    bool // as the values' time
	}{
		"now":                 {whole, true},
		"a little late":       {whole.Add(-time.Minute), true},
		"as late as it may":   {whole.Add(-late), true},
		"later":               {whole.Add(-late - time.Microsecond), false},
		"1970":                {time.Unix(0, 0).UTC(), false},
		"as far as it may":    {whole.Add(ahead), true},
		"further":             {whole.Add(ahead + time.Microsecond), false},
		"2106":                {time.Date(2106, 2, 7, 6, 28, 15, 0, time.UTC), false},
		"2199":                {time.Date(2199, 12, 31, 23, 59, 59, 0, time.UTC), false},
		"in parts of a micro": {whole.Add(ahead + 999), true},
	} {
		at, device := plausible(test.claimed, received, ahead, late)
		if test.kept {
			assert.Equal(t, test.claimed.Truncate(time.Microsecond), at, name)
			assert.Zero(t, device, name)
			continue
		}
		assert.Equal(t, whole, at, name)
		assert.Equal(t, test.claimed, device, name)
	}
	at, device := plausible(time.Time{}, received, ahead, late)
	assert.Equal(t, whole, at, "no clock: the receive time")
	assert.Zero(t, device)

	_, d, _ := decodeBody(t, "tele alarm-mode.4.motion-sensor-2", `{"timestamp":"1970-01-01 00:00:07","status":true}`, newController())
	assert.Equal(t, whole, d.Time)
	assert.Equal(t, time.Unix(7, 0).UTC(), d.DeviceTime)
}

// TestWrongCRC: a wrong CRC is counted, and refused if the configuration asks for it.
func TestWrongCRC(t *testing.T) {
	t.Parallel()
	c := newController(environment[:2]...)
	strict := asConfigured()
	strict.refuseWrongCRC = true
	for _, test := range []struct {
		frame      string
		counted    bool
		lax, exact string
	}{
		{"01 04 04 01 31 02 22 2A CE", false, "1=3.05 °C 2=5.46 %", "1=3.05 °C 2=5.46 %"},
		{"01 04 04 01 31 02 22 FF FF", true, "1=3.05 °C 2=5.46 %", "!wrong_crc"},
		{"01 04 04 01 31 02 22", false, "1=3.05 °C 2=5.46 %", "!wrong_crc"},
		{"AA 55 04 01 31 02 22 FF FF", false, "1=3.05 °C 2=5.46 %", "1=3.05 °C 2=5.46 %"},
	} {
		out, d := decodeWith(t, "tele sensor-mode.1.sensor-1", frameBody(test.frame), c, asConfigured(), event.PlaceID(1, 1))
		assert.Equal(t, test.counted, out.wrongCRC, test.frame)
		assert.Equal(t, test.lax, outline(&d, out.dead), test.frame)
		out, d = decodeWith(t, "tele sensor-mode.1.sensor-1", frameBody(test.frame), c, strict, event.PlaceID(1, 1))
		assert.Equal(t, test.counted, out.wrongCRC, test.frame)
		assert.Equal(t, test.exact, outline(&d, out.dead), test.frame)
	}
}

// TestShard: messages of one controller go to one worker, and controllers are spread over the
// workers.
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
