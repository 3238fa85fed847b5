package payload_test

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
)

// fuzzTopics are the topics of fuzz inputs: one for each form of body.
var fuzzTopics = []string{
	"tele/sensor-1", "cmnd/sensor-1", "tele/strike-1", "tele/door-sensors", "stat/exit-buttons",
	"tele/reader-1", "cmnd/strike-1", "cmnd/siren-1", "cmnd/reader-1/success", "cmnd/motion-sensor-1",
}

func FuzzParse(f *testing.F) {
	for i, body := range []string{
		`{"timestamp":"2026-03-01 10:00:00","data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`,
		`{"timestamp":"2026-03-01T10:00:00.5+02:00","temperature":23.5,"CO2":7e2}`,
		`{"status":true,"more":[1,{"a":null},"\u00e9"]}`,
		`{"door-sensor-1":false,"door-sensor-2":true}`,
		`{"timestamp":"2026-03-01 10:00:00","exit-button-1":true}`,
		`{"data":"https://example.org"}`,
		`{"power-flag":2,"period":255}`,
		`1`,
		`3`,
		``,
	} {
		f.Add(uint8(i), []byte(body))
	}
	parser := new(payload.Parser)
	f.Fuzz(func(t *testing.T, choice uint8, body []byte) {
		on := on(t, fuzzTopics[int(choice)%len(fuzzTopics)])
		before := bytes.Clone(body)
		got, err := parser.Parse(on, body)
		require.Equal(t, before, body, "the body must not change")
		fresh, freshErr := new(payload.Parser).Parse(on, body)
		require.Equal(t, fresh, got, "what was parsed before must not matter")
		require.Equal(t, freshErr, err)
		if err != nil {
			var refused *payload.Error
			require.ErrorAs(t, err, &refused)
			require.Contains(t, reasons, refused.Reason)
			require.Zero(t, got)
			return
		}
		requireWhole(t, got)
	})
}

// requireWhole requires that a payload is as its comments say.
func requireWhole(t require.TestingT, p payload.Payload) {
	forms := 0
	if p.Frame != nil {
		forms++
		require.NotEmpty(t, p.Frame)
	}
	if p.Numbers != nil {
		forms++
		require.NotEmpty(t, p.Numbers)
	}
	if p.State != nil {
		forms++
		requireCompact(t, p.State)
	}
	require.Equal(t, 1, forms)
	for _, n := range p.Numbers {
		require.False(t, math.IsNaN(n.Value) || math.IsInf(n.Value, 0))
		require.NotEmpty(t, n.Label)
	}
	if !p.Time.IsZero() {
		require.True(t, 1970 <= p.Time.Year() && p.Time.Year() <= 2200)
	}
}
