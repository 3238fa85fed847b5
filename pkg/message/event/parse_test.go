package event

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// own returns messages of AppendJSON.
func own() []Decoded {
	at := time.Date(2026, 11, 24, 10, 0, 0, 123456000, time.UTC)
	text := "F2S-2.14"
	reading := Decoded{
		ID: ID{1, 0xfe}, Time: at, Received: at.Add(time.Nanosecond), Root: "tele", MAC: "e4fd45f654be", ControllerID: 7,
		Mode: "sensor-mode", Connector: 1, Component: "sensor-1", DeviceID: 8, Device: "Hall", MetadataVersion: "00ff",
		Values: []DataPoint{
			{DataPointID: 1, Label: "Temperature", Number: -25.52, Unit: "°C"},
			{DataPointID: 2, Label: "Firmware", Text: &text},
			{DataPointID: 3, Label: "CO2", Number: 0},
		},
	}
	opened := reading
	opened.DeviceID, opened.Device, opened.Values = 0, "", nil
	opened.Verb, opened.State = "success", []byte(`{"door-sensor-1":true,"n":{"deep":[1,2]}}`)
	return []Decoded{reading, opened}
}

// TestParseOwn: messages of AppendJSON do not need the JSON parser.
func TestParseOwn(t *testing.T) {
	t.Parallel()
	for _, want := range own() {
		var got Decoded
		data := want.AppendJSON(nil)
		require.True(t, got.parseOwn(string(data)), "%s", data)
		want.MAC, want.Mode, want.Connector, want.Component = "", "", 0, "" // the subject says them
		assert.Equal(t, want, got)
		for i := range data { // cut short, it is refused
			var cut Decoded
			require.False(t, cut.parseOwn(string(data[:i])), "%s", data[:i])
		}
	}
}

// FuzzParseOwn compares everything that parseOwn accepts with the JSON parser.
func FuzzParseOwn(f *testing.F) {
	for _, d := range own() {
		f.Add(d.AppendJSON(nil))
	}
	f.Add([]byte(`{"id":"01fe0000000000000000000000000000","time":"2026-11-24T10:00:00.5Z","delay":-0.5,"root":"","controller":-0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want Decoded
		if !got.parseOwn(string(data)) {
			return
		}
		require.True(t, json.Valid(data), "%s", data)
		const subject = "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1"
		require.NoError(t, got.setPlace(subject))
		require.NoError(t, want.parseAny(subject, data), "%s", data)
		// Offsets are pointers to zones, of which each parser makes its own.
		require.True(t, want.Time.Equal(got.Time) && want.Received.Equal(got.Received))
		want.Time, want.Received = got.Time, got.Received
		require.Equal(t, want, got, "%s", data)
	})
}
