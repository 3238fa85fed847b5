package payload_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
)

func TestEvent(t *testing.T) {
	for _, tc := range []struct{ topic, body, state string }{
		{"tele/strike-1", `{"status":true}`, `{"status":true}`},
		{"stat/siren-1", `{"status":false}`, `{"status":false}`},
		{"tele/motion-sensor-2", `{"status" : true , "zone":"hall"}`, `{"status":true,"zone":"hall"}`},
		{"tele/strike-1", `{"stat\u0075s":true}`, `{"status":true}`},
		{"tele/strike-1", `{"status":true,"a\/\u00e9":"\u0041\n"}`, `{"a/é":"A\n","status":true}`},
		{"tele/strike-1", `{"more": [ 1 , {"a" : null, "b":[ ] } , -1.5e3, {}, "]"], "status":true}`, `{"more":[1,{"a":null,"b":[]},-1.5e3,{},"]"],"status":true}`},
		{"tele/door-sensors", `{"door-sensor-1":false,"door-sensor-2":true}`, `{"door-sensor-1":false,"door-sensor-2":true}`},
		{"tele/door-sensors", `{"door-sensor-0":false,"door-sensor-99":true,"battery":3.1}`, `{"door-sensor-0":false,"door-sensor-99":true,"battery":3.1}`},
		{"stat/exit-buttons", `{"exit-button-1":true}`, `{"exit-button-1":true}`},
		{"tele/reader-1", `{"data":"https://example.org/é"}`, `{"data":"https://example.org/é"}`},
		{"tele/reader-1", `{"data":"` + strings.Repeat("é", payload.MaxReaderData) + `"}`, `{"data":"` + strings.Repeat("é", payload.MaxReaderData) + `"}`},
		{"tele/reader-1", `{"data":"` + strings.Repeat(`\u00e9`, payload.MaxReaderData) + `"}`, `{"data":"` + strings.Repeat("é", payload.MaxReaderData) + `"}`},
		{"cmnd/strike-1", `{"power-flag":2,"period":255}`, `{"power-flag":2,"period":255}`},
		{"cmnd/strike-1", `{"power-flag":0}`, `{"power-flag":0}`},
		{"cmnd/strike-1", `{"period":1,"power-flag":1,"by":"console"}`, `{"period":1,"power-flag":1,"by":"console"}`},
		{"cmnd/siren-1", `0`, `{"value":0}`},
		{"cmnd/siren-1", " 1\n", `{"value":1}`},
		{"cmnd/reader-1/success", `3`, `{"success":3}`},
		{"cmnd/strike-1", ``, `{"request":"status"}`},
		{"cmnd/door-sensors", "\n", `{"request":"status"}`},
		{"cmnd/reader-1", ``, `{"request":"status"}`},
	} {
		t.Run(tc.topic+" "+tc.body[:min(len(tc.body), 40)], func(t *testing.T) {
			got, err := new(payload.Parser).Parse(on(t, tc.topic), []byte(tc.body))
			require.NoError(t, err)
			require.True(t, got.Time.IsZero())
			require.Nil(t, got.Frame)
			require.Nil(t, got.Numbers)
			require.JSONEq(t, tc.state, string(got.State))
			requireCompact(t, got.State)
		})
	}
}

func TestEventTime(t *testing.T) {
	for _, body := range []string{
		`{"timestamp":"2026-03-01 10:00:00","status":true}`,
		`{"status":true,"timestamp":"2026-03-01 10:00:00"}`,
	} {
		got, err := new(payload.Parser).Parse(on(t, "tele/strike-1"), []byte(body))
		require.NoError(t, err)
		require.Equal(t, date(2026, 3, 1, 10, 0, 0, 0), got.Time)
		require.Equal(t, `{"status":true}`, string(got.State))
	}
}

// TestEventLeavesOut: invalid members beside the required one are left out.
func TestEventLeavesOut(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, tc := range []struct{ topic, body, state, refused string }{
		{"tele/door-sensors", `{"door-sensor-1":true,"door-sensor-2":null}`, `{"door-sensor-1":true}`, "door-sensor-2:bad_field"},
		{"tele/door-sensors", `{"door-sensor-x":true,"door-sensor-2":false,"n":1}`, `{"door-sensor-2":false,"n":1}`, "door-sensor-x:bad_field"},
		{"tele/exit-buttons", `{"exit-button-1":"on","exit-button-2":[true],"exit-button-3":true}`, `{"exit-button-3":true}`, "exit-button-1:bad_field exit-button-2:bad_field"},
		{"tele/strike-1", `{"a":"\u0000","status":true}`, `{"status":true}`, "a:nul_character"},
		{"tele/strike-1", `{"status":true,"a":{"\u0000":1,"b":[1,2]},"c":[3]}`, `{"status":true,"c":[3]}`, "a:nul_character"},
		{"tele/strike-1", `{"status":true,"a":1e400}`, `{"status":true}`, "a:bad_number"},
		{"tele/strike-1", `{"a":1e-99999,"status":true}`, `{"status":true}`, "a:bad_number"},
		{"tele/strike-1", `{"status":true,"a":0e99999999999999999999}`, `{"status":true}`, "a:bad_number"},
		{"tele/strike-1", `{"status":true,"a":[` + strings.Repeat("1", 65) + `,2],"b":3}`, `{"status":true,"b":3}`, "a:bad_number"},
		{"tele/strike-1", `{"a":` + nested(payload.MaxDepth) + `,"status":true}`, `{"status":true}`, "a:too_deep"},
		{"tele/strike-1", `{"a":[0` + strings.Repeat(",0", payload.MaxMembers) + `],"status":true}`, `{"status":true}`, "a:too_many_members"},
		{"tele/strike-1", `{"status":true,"":1}`, `{"status":true}`, ":bad_field"},
		{"tele/strike-1", `{"status":true,"Data":1}`, `{"status":true}`, "Data:bad_field"},
	} {
		t.Run(tc.topic+" "+tc.body[:min(len(tc.body), 40)], func(t *testing.T) {
			got, err := new(payload.Parser).Parse(on(t, tc.topic), []byte(tc.body))
			require.NoError(t, err)
			require.Equal(t, tc.state, string(got.State))
			requireCompact(t, got.State)
			var refused []string
			for _, r := range got.Refused {
				refused = append(refused, r.Member+":"+r.Reason)
			}
			require.Equal(t, tc.refused, strings.Join(refused, " "))
		})
	}
	_, err := new(payload.Parser).Parse(on(t, "cmnd/strike-1"), []byte(`{"power-flag":1,"a":1e400}`))
	requireReason(t, err, payload.ReasonBadNumber) // a command is taken as a whole or not at all
}

func TestEventRefuses(t *testing.T) {
	for _, tc := range []struct{ topic, body, reason string }{
		{"tele/strike-1", `{}`, payload.ReasonMissingField},
		{"tele/strike-1", `{"timestamp":"2026-03-01 10:00:00"}`, payload.ReasonMissingField},
		{"tele/strike-1", `{"state":true}`, payload.ReasonMissingField},
		{"tele/strike-1", `{"Status":true}`, payload.ReasonMissingField},
		{"tele/strike-1", `{"status":1}`, payload.ReasonBadField},
		{"tele/strike-1", `{"status":"on"}`, payload.ReasonBadField},
		{"tele/strike-1", `{"status":null}`, payload.ReasonBadField},
		{"tele/strike-1", `{"status":[true]}`, payload.ReasonBadField},
		{"tele/strike-1", `{"status":true,"TIMESTAMP":"2026-03-01 10:00:00"}`, payload.ReasonBadField},
		{"tele/strike-1", `{"status":true,"timestamp":"2026-02-29 10:00:00"}`, payload.ReasonBadTimestamp},
		{"stat/siren-1", `1`, payload.ReasonNotAnObject},
		{"tele/door-sensors", `{"exit-button-1":true}`, payload.ReasonMissingField},
		{"tele/door-sensors", `{"door-sensor-1":1}`, payload.ReasonBadField},
		{"tele/door-sensors", `{"door-sensor-01":true}`, payload.ReasonBadField},
		{"tele/door-sensors", `{"door-sensor-100":true}`, payload.ReasonBadField},
		{"tele/door-sensors", `{"door-sensor-":true}`, payload.ReasonBadField},
		{"tele/door-sensors", `{"door-sensor-x":true}`, payload.ReasonBadField},
		{"tele/exit-buttons", `{"door-sensor-1":true}`, payload.ReasonMissingField},
		{"tele/reader-1", `{"data":""}`, payload.ReasonMissingData},
		{"tele/reader-1", `{"data":7}`, payload.ReasonBadField},
		{"tele/reader-1", `{"Data":"x"}`, payload.ReasonBadField},
		{"tele/reader-1", `{"data":"a\u0000b"}`, payload.ReasonNULCharacter},
		{"tele/reader-1", `{"data":"` + strings.Repeat("é", payload.MaxReaderData+1) + `"}`, payload.ReasonDataTooLong},
		{"cmnd/strike-1", `{"period":5}`, payload.ReasonMissingField},
		{"cmnd/strike-1", `{"power-flag":3,"period":5}`, payload.ReasonBadField},
		{"cmnd/strike-1", `{"power-flag":-1,"period":5}`, payload.ReasonBadField},
		{"cmnd/strike-1", `{"power-flag":1.0,"period":5}`, payload.ReasonBadField},
		{"cmnd/strike-1", `{"power-flag":"1","period":5}`, payload.ReasonBadField},
		{"cmnd/strike-1", `{"power-flag":true,"period":5}`, payload.ReasonBadField},
		{"cmnd/strike-1", `{"power-flag":1,"period":0}`, payload.ReasonBadField},
		{"cmnd/strike-1", `{"power-flag":1,"period":256}`, payload.ReasonBadField},
		{"cmnd/siren-1", `2`, payload.ReasonBadField},
		{"cmnd/siren-1", `true`, payload.ReasonBadField},
		{"cmnd/siren-1", `"1"`, payload.ReasonBadField},
		{"cmnd/siren-1", `{"value":1}`, payload.ReasonBadField},
		{"cmnd/siren-1", `on`, payload.ReasonBadJSON},
		{"cmnd/reader-1/success", `0`, payload.ReasonBadField},
		{"cmnd/reader-1/success", `4`, payload.ReasonBadField},
		{"cmnd/reader-1", `1`, payload.ReasonUnknownCommand},
		{"cmnd/motion-sensor-1", `1`, payload.ReasonUnknownCommand},
		{"cmnd/door-sensors", `{"door-sensor-1":true}`, payload.ReasonUnknownCommand},
	} {
		t.Run(tc.topic+" "+tc.body[:min(len(tc.body), 40)], func(t *testing.T) {
			got, err := new(payload.Parser).Parse(on(t, tc.topic), []byte(tc.body))
			requireReason(t, err, tc.reason)
			require.Zero(t, got)
		})
	}
}
