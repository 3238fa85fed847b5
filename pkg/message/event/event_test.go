package event_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/event"
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
	assert.JSONEq(t, `{"id":"0102fe00000000000000000000000000","time":"2026-11-24T10:00:00.123456Z","received":"2026-11-24T10:00:00.123456789Z",`+
		`"root":"tele","mac":"e4fd45f654be","controller_id":7,"mode":"sensor-mode","connector":1,"component":"sensor-1",`+
		`"device_id":8,"device":"Hall \"north\"","metadata_version":"00ff","values":[`+
		`{"datapoint_id":1,"label":"Temperature","value":25.52,"unit":"°C"},{"datapoint_id":2,"label":"Firmware","text":"F2S-2.14"}]}`,
		string(d.AppendJSON(nil)))
	assert.Equal(t, "before{", string(d.AppendJSON([]byte("before"))[:7]), "it appends")

	d.DeviceTime, d.Repeat = moment.AddDate(70, 0, 0), true
	assert.Contains(t, string(d.AppendJSON(nil)), `"received":"2026-11-24T10:00:00.123456789Z","device_time":"2096-11-24T10:00:00.123456789Z","repeat":true,"root"`)
	assert.Equal(t, d, inverse(t, &d))
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
	require.NoError(t, event.ParseDecoded(data, &got))
	return got
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
		d.ControllerID, d.Connector = rapid.Int32().Draw(t, "controller"), rapid.IntRange(0, 99).Draw(t, "connector")
		d.Values = rapid.SliceOfN(value, 1, 5).Draw(t, "values")
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
	require.NoError(t, event.ParseDecoded(first.AppendJSON(nil), &d))
	room := cap(d.Values)
	require.NoError(t, event.ParseDecoded(second.AppendJSON(nil), &d))
	assert.Equal(t, second, d)
	assert.Equal(t, room, cap(d.Values), "the values' room is used again")
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, data := range []string{``, `{`, `[]`, `{"id":"01"}`, `{"id":"zz02fe00000000000000000000000000"}`, `{"time":"yesterday"}`, `{"device_id":2147483648}`, `{"values":[{"value":"1"}]}`, `{"values":[{"value":1e999}]}`} {
		var d event.Decoded
		require.Error(t, event.ParseDecoded([]byte(data), &d), data)
	}
	var d event.Decoded
	require.NoError(t, event.ParseDecoded([]byte(`{"a later version's field":1}`), &d), "the control")
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
