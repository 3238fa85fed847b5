package event_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

var moment = time.Date(2026, 11, 24, 10, 0, 0, 123456789, time.UTC)

// sample returns a reading like the decoder's.
func sample() event.Decoded {
	return event.Decoded{
		ID: event.ID{1, 2, 0xfe}, Time: moment.Truncate(time.Microsecond), Received: moment,
		Root: "tele", MAC: "e4fd45f654be", ControllerID: 7, Mode: "sensor-mode", Connector: 1, Component: "sensor-1",
		DeviceID: 8, Device: "Hall \"north\"", MetadataVersion: "00ff",
		Values: []event.DataPoint{
			{DataPointID: 1, Label: "Temperature", Number: 25.52, Unit: "°C"},
			{DataPointID: 2, Label: "Firmware", Text: new("F2S-2.14")},
		},
	}
}

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	d := sample()
	assert.Equal(t, `{"id":"0102fe00000000000000000000000000","time":"2026-11-24T10:00:00.123456Z","delay":0.000000789,`+ //nolint:testifylint // byte for byte
		`"device":[8,"Hall \"north\""],"controller":7,"metadata":"00ff","points":[[1,"Temperature",25.52,"°C"],[2,"Firmware","F2S-2.14"]]}`,
		string(d.AppendJSON(nil)))
	assert.Equal(t, "before{", string(d.AppendJSON([]byte("before"))[:7]), "it appends")

	d.DeviceTime, d.Repeat, d.Root, d.Received = moment.AddDate(70, 0, 0), true, "cmnd", d.Time
	assert.Contains(t, string(d.AppendJSON(nil)), `"time":"2026-11-24T10:00:00.123456Z","device_time":"2096-11-24T10:00:00.123456789Z","repeat":true,"root":"cmnd","device"`)
	assert.Equal(t, d, inverse(t, &d))
}

// TestEarlierWriterRefuses: a writer of an earlier version fails on a message of this one, and does
// not take it for one without values.
func TestEarlierWriterRefuses(t *testing.T) {
	t.Parallel()
	reading, door := sample(), sample()
	door.DeviceID, door.Device, door.Values, door.State = 0, "", nil, jsontext.Value(`{"door-sensor-1":true}`)
	for _, d := range []event.Decoded{reading, door} {
		var earlier struct {
			Device string `json:"device"`
		}
		require.Error(t, json.Unmarshal(d.AppendJSON(nil), &earlier))
		assert.Equal(t, d, inverse(t, &d), "the control")
	}
}

// TestInverse covers numbers and texts that a hand-written encoder easily gets wrong.
func TestInverse(t *testing.T) {
	t.Parallel()
	for _, f := range []float64{
		0, math.Copysign(0, -1), 0.1, 1e-6, 9.999999e-7, 1e20, 1e21, -1e21, 1.7976931348623157e308,
		math.SmallestNonzeroFloat64, 2.2250738585072014e-308, 1 << 53, 1<<53 + 2, 18446744073709551615, -9223372036854775808, 25.52,
	} {
		d := sample()
		d.Values = []event.DataPoint{{DataPointID: math.MaxInt32, Number: f}}
		got := inverse(t, &d)
		assert.Equal(t, math.Float64bits(f), math.Float64bits(got.Values[0].Number), "%g", f)
	}
	for _, s := range []string{"", `"`, `\`, "\x00\x1f\x7f", "a\r\nb\t", "</script>", "\u2028\u2029", "°C m³ 日本 😀", "\ufffd"} {
		d := sample()
		d.Device, d.Values = s, []event.DataPoint{{Label: s, Unit: s, Text: &s}}
		assert.Equal(t, d, inverse(t, &d), "%q", s)
	}
	for _, state := range []string{`{}`, `{"status":true}`, `{"data":"a\"b\\"}`, `{"n":[1,2.5e3,null,{"deep":{}}]}`} {
		d := sample()
		d.DeviceID, d.Device, d.Values, d.State, d.Verb = 0, "", nil, jsontext.Value(state), "success"
		assert.Equal(t, d, inverse(t, &d), state)
	}
}

func inverse(t require.TestingT, d *event.Decoded) event.Decoded {
	data := d.AppendJSON(nil)
	require.True(t, json.Valid(data), "%s", data)
	var got event.Decoded
	require.NoError(t, event.ParseDecoded(subject(d), data, &got))
	var document event.Decoded // JSON of ours is read as that of others is
	require.NoError(t, document.ParseAny(subject(d), data))
	require.Equal(t, got, document)
	return got
}

func subject(d *event.Decoded) string {
	return fmt.Sprintf("f2.decoded.%s.%s.%d.%s", d.MAC, d.Mode, d.Connector, d.Component)
}

func TestInverseProperty(t *testing.T) {
	t.Parallel()
	value := rapid.Custom(func(t *rapid.T) event.DataPoint {
		v := event.DataPoint{DataPointID: rapid.Int32().Draw(t, "id"), Label: rapid.String().Draw(t, "label"), Unit: rapid.String().Draw(t, "unit")}
		if rapid.Bool().Draw(t, "is text") {
			v.Text = new(rapid.String().Draw(t, "text"))
		} else {
			v.Number = rapid.Float64().Draw(t, "number")
		}
		return v
	})
	rapid.Check(t, func(t *rapid.T) {
		d := sample()
		d.ID = event.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		d.Time = time.UnixMicro(rapid.Int64Range(0, 7258118399999999).Draw(t, "time")).UTC()
		d.Verb, d.MetadataVersion = rapid.String().Draw(t, "verb"), rapid.String().Draw(t, "version")
		d.Received = d.Time.Add(rapid.OneOf(rapid.Just(time.Duration(0)), rapid.Map(rapid.Int64Range(-1e18, 1e18), func(n int64) time.Duration { return time.Duration(n) })).Draw(t, "delay"))
		if rapid.Bool().Draw(t, "implausible") {
			d.DeviceTime = time.UnixMicro(rapid.Int64Range(0, 7258118399999999).Draw(t, "device time")).UTC()
		}
		d.Repeat = rapid.Bool().Draw(t, "repeat")
		d.Root = rapid.SampledFrom([]string{"tele", "stat", "cmnd"}).Draw(t, "root")
		d.MAC = rapid.StringMatching(`[0-9a-f]{12}`).Draw(t, "mac")
		d.Mode = rapid.SampledFrom([]string{"sensor-mode", "access-control-mode", "alarm-mode"}).Draw(t, "mode")
		d.Component = rapid.SampledFrom([]string{"sensor-0", "reader-99", "door-sensors"}).Draw(t, "component")
		d.ControllerID, d.Connector = rapid.Int32().Draw(t, "controller"), rapid.IntRange(0, 99).Draw(t, "connector")
		if d.DeviceID = rapid.Int32().Draw(t, "device"); d.DeviceID == 0 {
			d.Device = ""
		}
		if d.Values = rapid.SliceOfN(value, 0, 5).Draw(t, "values"); len(d.Values) == 0 {
			d.Values, d.State = nil, jsontext.Value(rapid.SampledFrom([]string{`{}`, `{"a":[1,"\""]}`}).Draw(t, "state"))
		}
		require.Equal(t, d, inverse(t, &d))
	})
}

// TestParseReuses: parsing into the same Decoded leaves nothing of the previous message.
func TestParseReuses(t *testing.T) {
	t.Parallel()
	first, second := sample(), sample()
	first.Values[0], first.Values[1] = first.Values[1], first.Values[0]
	first.State, first.Verb = jsontext.Value(`{"old":1}`), "success"
	second.Values = []event.DataPoint{{DataPointID: 9, Number: 1}}
	var d event.Decoded
	require.NoError(t, event.ParseDecoded(subject(&first), first.AppendJSON(nil), &d))
	room := cap(d.Values)
	require.NoError(t, event.ParseDecoded(subject(&second), second.AppendJSON(nil), &d))
	assert.Equal(t, second, d)
	assert.Equal(t, room, cap(d.Values), "the values' room is used again")
}

const place = "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1"

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		``, `{`, `[]`, `{"id":"01"}`, `{"id":"zz02fe00000000000000000000000000"}`, `{"time":"yesterday"}`, `{"device_id":2147483648}`, `{"values":[{"value":"1"}]}`, `{"values":[{"value":1e999}]}`,
		`{"controller":2147483648}`, `{"controller":"1"}`, `{"controller":1,"controller":1}`, `{"delay":"1"}`, `{"delay":1e3}`, `{"delay":1e99}`, `{"delay":99999999999}`,
		`{"device":1}`, `{"device":[]}`, `{"device":["1","Hall"]}`, `{"device":[1,"Hall",2]}`, `{"device":[1,null]}`, `{"device":[1,2]}`,
		`{"points":[{}]}`, `{"points":[[1,"a"]]}`, `{"points":[[1,"a",2,"b","c"]]}`, `{"points":[["1","a",2]]}`, `{"points":[[1,2,3]]}`, `{"points":[[1,"a",null]]}`,
		`{"points":[[1,"a",true]]}`, `{"points":[[1,"a",1e999]]}`, `{"points":[[1,"a",2,3]]}`, `{"points":[[2147483648,"a",2]]}`, `{"points":[[1,"a",{"a":1,"a":1}]]}`,
	} {
		var d event.Decoded
		require.Error(t, event.ParseDecoded(place, []byte(data), &d), data)
	}
	var d event.Decoded
	require.NoError(t, event.ParseDecoded(place, []byte(`{"a later version's field":1}`), &d), "the control")
	own := sample()
	for _, data := range [][]byte{own.AppendJSON(nil), []byte(`{ }`)} {
		for _, wrong := range []string{"", "f2.decoded.test", place + ".success", "$KV.LATEST.e4fd45f654be.sensor-mode.1.sensor-1", "f2.decoded.E4FD45F654BE.sensor-mode.1.sensor-1"} {
			_, ok := errors.AsType[*topic.Error](event.ParseDecoded(wrong, data, &d))
			require.True(t, ok, wrong)
		}
	}
}

// TestEarlierFormat: what earlier versions wrote, which an upgrade finds on DECODED and LATEST, is
// read like its new form, which is much smaller. The file has what the last of them wrote.
func TestEarlierFormat(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/earlier_format.jsonl")
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	for i, want := range earlier() {
		var got event.Decoded
		require.NoError(t, event.ParseDecoded("not looked at", lines[i], &got))
		assert.Equal(t, *want, got)
		assert.Equal(t, *want, inverse(t, want))
	}
	for i, percent := range []int{51, 58} { // of a reading with three data points, and of an event
		now := earlier()[i].AppendJSON(nil)
		assert.LessOrEqual(t, 100*len(now), percent*len(lines[i]), "%s", now)
	}
}

// earlier returns what the lines of earlier_format.jsonl say.
func earlier() []*event.Decoded {
	at := moment.Truncate(time.Second)
	reading := event.Decoded{
		ID: event.PlaceID(1796034243000000000, 1234567), Time: at, Received: at.Add(112233445),
		Root: "tele", MAC: "e4fd45f654be", ControllerID: 101, Mode: "sensor-mode", Connector: 1, Component: "sensor-1",
		DeviceID: 1002, Device: "Environment sensor", MetadataVersion: "cbf29ce484222325",
		Values: []event.DataPoint{{DataPointID: 1, Label: "Temperature", Number: 25.52, Unit: "°C"}, {DataPointID: 2, Label: "Humidity", Number: 50, Unit: "%"}, {DataPointID: 3, Label: "CO2", Number: 700, Unit: "ppm"}},
	}
	door := reading
	door.Mode, door.Component, door.DeviceID, door.Device, door.Values = "access-control-mode", "door-sensors", 0, "", nil
	door.State = []byte(`{"door-sensor-1":false,"door-sensor-2":true}`)
	escaped, late := sample(), sample()
	late.DeviceTime, late.Repeat, late.Root = moment.AddDate(70, 0, 0), true, "cmnd"
	read := door
	read.Received, read.Root, read.Component, read.Verb, read.MetadataVersion = read.Time, "cmnd", "reader-1", "success", ""
	read.State = []byte(`{"data":"a\"b\\"}`)
	odd := reading
	odd.Values = []event.DataPoint{{DataPointID: math.MaxInt32, Number: -1e-9}, {DataPointID: 3, Label: "日本", Text: new("")}}
	siren := read
	siren.Root, siren.Mode, siren.Connector, siren.Component, siren.Verb, siren.State = "stat", "alarm-mode", 99, "siren-99", "", []byte(`{}`)
	return []*event.Decoded{&reading, &door, &escaped, &late, &read, &odd, &siren}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]event.DataPoint{
		"25.52 °C": {Number: 25.52, Unit: "°C"},
		"700":      {Number: 700},
		`"a\nb" x`: {Text: new("a\nb"), Unit: "x"},
	} {
		assert.Equal(t, want, v.Format())
	}
}
