package payload_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
)

func TestSensor(t *testing.T) {
	for _, tc := range []struct {
		name, topic, body string
		want              payload.Payload
	}{
		{
			"frame", "tele/sensor-1", `{"timestamp":"2026-03-01 10:00:00.250000","data":"01 03 0C 09 f8"}`,
			payload.Payload{Time: date(2026, 3, 1, 10, 0, 0, 250e6), Frame: []byte{1, 3, 12, 9, 0xf8}},
		},
		{
			"frame without spaces or time", "stat/sensor-0", `{"data":"0103"}`,
			payload.Payload{Frame: []byte{1, 3}},
		},
		{
			"escaped frame", "tele/sensor-1", `{"d\u0061ta":"\u0030103"}`,
			payload.Payload{Frame: []byte{1, 3}},
		},
		{
			"older firmware", "cmnd/sensor-1", ` { "timestamp" : "2026-03-01 10:00:00" , "temperature" : 23.5 } `,
			payload.Payload{Time: date(2026, 3, 1, 10, 0, 0, 0), Numbers: []payload.Number{{Label: "temperature", Value: 23.5}}},
		},
		{
			"numbers", "tele/sensor-1", `{"Temperature":-1.5e1,"CO2 (ppm)":700,"Humidit\u00e9":0,"x":-0}`,
			payload.Payload{Numbers: []payload.Number{
				{Label: "Temperature", Value: -15}, {Label: "CO2 (ppm)", Value: 700}, {Label: "Humidité"}, {Label: "x"},
			}},
		},
		{
			"number too small", "tele/sensor-1", `{"a":1e-999}`,
			payload.Payload{Numbers: []payload.Number{{Label: "a"}}},
		},
		{
			"time last", "tele/sensor-1", `{"a":1,"timestamp":"2026-03-01T10:00:00+02:00"}`,
			payload.Payload{Time: date(2026, 3, 1, 8, 0, 0, 0), Numbers: []payload.Number{{Label: "a", Value: 1}}},
		},
		{"status asked for", "cmnd/sensor-1", "", payload.Payload{State: []byte(`{"request":"status"}`)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := new(payload.Parser).Parse(on(t, tc.topic), []byte(tc.body))
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

// TestSensorLeavesOut: invalid members beside valid ones are left out and named, and the valid
// ones are kept.
func TestSensorLeavesOut(t *testing.T) {
	const number, hex = "temperature=16.2", "01 03"
	long := strings.Repeat("é", payload.MaxNameLength)
	for _, tc := range []struct{ name, body, want, refused string }{
		{"strings", `{"model":"P","battery":"OK","temperature":16.2}`, number, "model:bad_field battery:bad_field"},
		{"null", `{"humidity":null,"temperature":16.2}`, number, "humidity:bad_field"},
		{"boolean", `{"temperature":16.2,"ok":true}`, number, "ok:bad_field"},
		{"object, array", `{"temperature":16.2,"a":{"b":[1,{"timestamp":"x","timestamp":2}]},"c":[[]]}`, number, "a:bad_field c:bad_field"},
		{"a number beside the frame", `{"data":"01 03","rssi":-60}`, hex, "rssi:data_and_numbers"},
		{"before the frame, with others", `{"rssi":-60,"unit":"C","data":"01 03","x":1}`, hex, "unit:bad_field rssi:data_and_numbers x:data_and_numbers"},
		{"data that are no frame", `{"data":"N/A","temperature":16.2}`, number, "data:bad_hex"},
		{"data that are null", `{"temperature":16.2,"data":null}`, number, "data:bad_field"},
		{"no data", `{"temperature":16.2,"data":""}`, number, "data:missing_data"},
		{"data in capitals", `{"temperature":16.2,"Data":"01"}`, number, "Data:bad_field"},
		{"infinite", `{"temperature":16.2,"x":1e999}`, number, "x:bad_number"},
		{"a label twice", `{"co2":1,"temperature":16.2,"co2":2}`, number, "co2:duplicate_name"},
		{"thrice, in any case", `{"co2":1,"CO2":1,"temperature":16.2,"Co2":2}`, number, "CO2:duplicate_name"},
		{"the first of two is good", `{"co2":1,"temperature":16.2,"co2":"x"}`, "co2=1 " + number, "co2:bad_field"},
		{"empty name", `{"":1,"temperature":16.2}`, number, ":bad_field"},
		{"long name", `{"` + long + `":1,"temperature":16.2}`, number, strings.Repeat("é", payload.MaxNameLength/2) + ":bad_field"},
		{"NUL in a name", `{"a\u0000":1,"temperature":16.2}`, number, `a\u0000:nul_character`},
		{"nested timestamp", `{"temperature":16.2,"x":{"timestamp":"2026-01-01 00:00:00"}}`, number, "x:bad_field"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := new(payload.Parser).Parse(on(t, "tele/sensor-1"), []byte(tc.body))
			require.NoError(t, err)
			require.Zero(t, got.Time)
			var kept, refused []string
			if got.Frame != nil {
				require.Nil(t, got.Numbers)
				kept = append(kept, fmt.Sprintf("% X", got.Frame))
			}
			for _, n := range got.Numbers {
				kept = append(kept, fmt.Sprint(n.Label, "=", n.Value))
			}
			for _, r := range got.Refused {
				refused = append(refused, r.Member+":"+r.Reason)
				require.Equal(t, "member "+payload.QuoteName(r.Member)+": "+r.What, r.Detail())
			}
			require.Equal(t, tc.want, strings.Join(kept, " "))
			require.Equal(t, tc.refused, strings.Join(refused, " "))
		})
	}
}

func TestSensorRefuses(t *testing.T) {
	for _, tc := range []struct{ name, body, reason string }{
		{"empty object", `{}`, payload.ReasonMissingData},
		{"time only", `{"timestamp":"2026-03-01 10:00:00"}`, payload.ReasonMissingData},
		{"empty data", `{"data":""}`, payload.ReasonMissingData},
		{"blank data", `{"data":"  "}`, payload.ReasonMissingData},
		{"half a byte", `{"data":"01 0"}`, payload.ReasonBadHex},
		{"not hex", `{"data":"hello"}`, payload.ReasonBadHex},
		{"NUL in data", `{"data":"01\u0000"}`, payload.ReasonNULCharacter},
		{"data is a number", `{"data":1}`, payload.ReasonBadField},
		{"data is null", `{"data":null}`, payload.ReasonBadField},
		{"data is an array", `{"data":[1,3]}`, payload.ReasonBadField},
		{"data in capitals", `{"Data":"01"}`, payload.ReasonBadField},
		{"time in capitals", `{"Timestamp":"2026-03-01 10:00:00","a":1}`, payload.ReasonBadField},
		{"boolean", `{"occupied":true}`, payload.ReasonBadField},
		{"string", `{"temperature":"23.5"}`, payload.ReasonBadField},
		{"null", `{"temperature":null}`, payload.ReasonBadField},
		{"object", `{"temperature":{"value":23.5}}`, payload.ReasonBadField},
		{"bad members alone", `{"temperature":"warm","humidity":null}`, payload.ReasonBadField},
		{"two frames", `{"data":"01","data":"02"}`, payload.ReasonDuplicateName},
		{"two times", `{"timestamp":"2026-03-01 10:00:00","a":1,"timestamp":"2026-03-01 10:00:00"}`, payload.ReasonDuplicateName},
		{"infinite", `{"temperature":1e999}`, payload.ReasonBadNumber},
		{"long number", `{"temperature":1.` + strings.Repeat("0", payload.MaxNumberLength) + `}`, payload.ReasonBadNumber},
		{"labels alike", `{"CO2":1,"co2":2}`, payload.ReasonDuplicateName},
		{"NUL in a label", `{"a\u0000":1}`, payload.ReasonNULCharacter},
		{"bad time", `{"timestamp":"yesterday","a":1}`, payload.ReasonBadTimestamp},
		{"numeric time", `{"timestamp":1772359200,"a":1}`, payload.ReasonBadTimestamp},
		{"null time", `{"timestamp":null,"a":1}`, payload.ReasonBadTimestamp},
		{"time is an object", `{"timestamp":{},"a":1}`, payload.ReasonBadTimestamp},
	} {
		for _, root := range []string{"tele", "stat", "cmnd"} {
			t.Run(tc.name+" on "+root, func(t *testing.T) {
				got, err := new(payload.Parser).Parse(on(t, root+"/sensor-1"), []byte(tc.body))
				requireReason(t, err, tc.reason)
				require.Zero(t, got)
			})
		}
	}
}
