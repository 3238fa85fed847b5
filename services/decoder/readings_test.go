package decoder

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// reading is a case of testdata/readings.json: a message of a sensor on J1 pin 1
// whose data points have the ids 1, 2, ….
type reading struct {
	Name     string
	Points   [][5]column         // label, offset, length, encoding, decimals
	Absent   map[string][]string // raw values that mean "not available", by data point
	Topic    string              // if not the usual one
	Body     string              // with the timestamp 2026-11-22 09:10:11, which is in UTC
	Values   map[string]float64  // that are written, by data point
	Letters, // reason, and what the detail says
	Strict [][2]string // where the configuration refuses wrong CRCs, and writes nothing
}

// column is a value of the metadata as text, nil for NULL.
type column struct{ text *string }

func (c *column) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	text := string(data)
	if data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	c.text = &text
	return nil
}

func readings(t *testing.T) (all []reading) {
	t.Helper()
	data, err := os.ReadFile("testdata/readings.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &all))
	require.NotEmpty(t, all)
	return all
}

func (r *reading) controller() *controller {
	b := newBuilder()
	for i, p := range r.Points {
		b.add(&row{
			controller: "7", connector: new("3"), number: new("1"), pin: new("11"), position: new("1"), device: new("8"), deviceName: new("Hall"),
			dataPoint: new(strconv.Itoa(i + 1)), label: p[0].text, offset: p[1].text, length: p[2].text, encoding: p[3].text, decimals: p[4].text,
		})
	}
	for id, values := range r.Absent {
		for _, raw := range values {
			b.addAbsent(id, &raw)
		}
	}
	return b.build()
}

func (r *reading) decode(t *testing.T, set *settings) (out outcome, d event.Decoded) {
	t.Helper()
	name := r.Topic
	if name == "" {
		name = "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1"
	}
	place, err := topic.Parse(name)
	require.NoError(t, err)
	m := message{topic: place, subject: place.RawSubject(), id: event.PlaceID(1, 1), received: time.Date(2026, 11, 22, 9, 10, 12, 0, time.UTC), body: []byte(r.Body)}
	var parser payload.Parser
	out = decode(&m, &parser, r.controller(), set, refused, &d)
	return out, d
}

// TestReadings covers messages of real fleets, with the expected values and letters.
func TestReadings(t *testing.T) {
	t.Parallel()
	for _, r := range readings(t) {
		t.Run(r.Name, func(t *testing.T) {
			out, d := r.decode(t, asConfigured())
			values := map[string]float64{}
			for _, v := range d.Values {
				values[strconv.Itoa(int(v.DataPointID))] = v.Number
			}
			assert.Equal(t, r.Values, values)
			assert.Equal(t, len(r.Values) > 0, out.ok)
			if out.ok {
				assert.Equal(t, time.Date(2026, 11, 22, 9, 10, 11, 0, time.UTC), d.Time)
			}
			requireLetters(t, r.Letters, out)

			strict := asConfigured()
			strict.refuseWrongCRC = true
			out, d = r.decode(t, strict)
			if len(r.Strict) == 0 {
				assert.Len(t, d.Values, len(r.Values))
				requireLetters(t, r.Letters, out)
				return
			}
			assert.False(t, out.ok)
			requireLetters(t, r.Strict, out)
		})
	}
}

func requireLetters(t *testing.T, want [][2]string, out outcome) {
	t.Helper()
	require.Len(t, out.dead, len(want), "%v", out.dead)
	for i, l := range out.dead {
		assert.Equal(t, want[i][0], l.Reason)
		assert.Contains(t, l.Detail, want[i][1])
	}
}
