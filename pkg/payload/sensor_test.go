package payload_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/payload"
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

func TestSensorRefuses(t *testing.T) {
	for _, tc := range []struct{ name, body, reason string }{
		{"empty object", `{}`, payload.ReasonMissingData},
		{"time only", `{"timestamp":"2026-03-01 10:00:00"}`, payload.ReasonMissingData},
		{"empty data", `{"data":""}`, payload.ReasonMissingData},
		{"blank data", `{"data":"  "}`, payload.ReasonMissingData},
		{"half a byte", `{"data":"01 0"}`, payload.ReasonBadHex},
		{"not hex", `{"data":"hello"}`, payload.ReasonBadHex},
		{"hex with a tab", `{"data":"01\t03"}`, payload.ReasonBadHex},
		{"NUL in data", `{"data":"01\u0000"}`, payload.ReasonNULCharacter},
		{"data is a number", `{"data":1}`, payload.ReasonBadField},
		{"data is null", `{"data":null}`, payload.ReasonBadField},
		{"data is an array", `{"data":[1,3]}`, payload.ReasonBadField},
		{"data and numbers", `{"data":"01","temperature":23.5}`, payload.ReasonDataAndNumbers},
		{"numbers and data", `{"temperature":23.5,"data":"01"}`, payload.ReasonDataAndNumbers},
		{"data in capitals", `{"Data":"01"}`, payload.ReasonBadField},
		{"time in capitals", `{"Timestamp":"2026-03-01 10:00:00","a":1}`, payload.ReasonBadField},
		{"boolean", `{"occupied":true}`, payload.ReasonBadField},
		{"string", `{"temperature":"23.5"}`, payload.ReasonBadField},
		{"null", `{"temperature":null}`, payload.ReasonBadField},
		{"object", `{"temperature":{"value":23.5}}`, payload.ReasonBadField},
		{"good and bad", `{"temperature":23.5,"unit":"C"}`, payload.ReasonBadField},
		{"infinite", `{"temperature":1e999}`, payload.ReasonBadNumber},
		{"long number", `{"temperature":1.` + strings.Repeat("0", payload.MaxNumberLength) + `}`, payload.ReasonBadNumber},
		{"labels alike", `{"CO2":1,"co2":2}`, payload.ReasonDuplicateName},
		{"NUL in a label", `{"a\u0000":1}`, payload.ReasonNULCharacter},
		{"bad time", `{"timestamp":"yesterday","a":1}`, payload.ReasonBadTimestamp},
		{"numeric time", `{"timestamp":1772359200,"a":1}`, payload.ReasonBadTimestamp},
		{"null time", `{"timestamp":null,"a":1}`, payload.ReasonBadTimestamp},
		{"time is an object", `{"timestamp":{},"a":1}`, payload.ReasonBadField},
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
