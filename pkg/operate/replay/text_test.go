package replay

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// TestPersonalPayloadIsShownOnRequest checks Reveal, and that long payloads are cut.
func TestPersonalPayloadIsShownOnRequest(t *testing.T) {
	t.Parallel()
	const secret = "04:A2:33:1B"
	for name, s := range map[string]Shown{
		"personal": {body: []byte(secret), length: len(secret), personal: true},
		"other":    {body: []byte(secret), length: len(secret)},
	} {
		hidden := text(t, &s)
		s.Reveal = true
		assert.Equal(t, name == "personal", !strings.Contains(hidden, secret), name)
		assert.Contains(t, text(t, &s), secret)
	}
	assert.Contains(t, text(t, &Shown{body: make([]byte, 10_000), length: 10_000}), "the first 4096 of 10000 bytes")
}

func text(t *testing.T, w io.WriterTo) string {
	t.Helper()
	var out bytes.Buffer
	n, err := w.WriteTo(&out)
	require.NoError(t, err)
	require.EqualValues(t, out.Len(), n)
	return out.String()
}

// TestPersonal: a payload is personal if a card reader sent it, or if its topic cannot be
// parsed.
func TestPersonal(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1":           false,
		"tele/f2-e4fd45f654be/access-control-mode/J1/reader-1":   true,
		"f2.decoded.e4fd45f654be.access-control-mode.1.reader-1": true,
		"f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1":         false,
		"nonsense": true,
	} {
		s := &Shown{Letter: deadletter.Stored{Letter: deadletter.Letter{Topic: name}}}
		require.NoError(t, new(Replayer).look(t.Context(), s))
		assert.Equal(t, want, s.personal, name)
	}
}

// TestTextIsHarmless writes texts that a terminal would obey, or a reader take for
// another line.
func TestTextIsHarmless(t *testing.T) {
	t.Parallel()
	for _, hostile := range []string{
		"\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\u009b31m", "a\nforged line", "a\rb", "a\tb", "\xff\xfe", "\x00", "\u202egnp.exe", "\u2028", "\x7f",
	} {
		letter := deadletter.Letter{Stage: hostile, Reason: hostile, Detail: hostile, Topic: hostile, Member: hostile, SQLState: hostile, MetadataVersion: hostile}
		for name, w := range map[string]io.WriterTo{
			"groups": Groups{{Stage: hostile, Reason: hostile, Detail: hostile}},
			"lines":  LetterList{{Stage: hostile, Reason: hostile, Detail: hostile}},
			"letter": &Shown{Letter: deadletter.Stored{Letter: letter}, absent: "gone"},
			"payload": &Shown{
				body: []byte(hostile), length: len(hostile), frame: []byte(hostile), points: []MetadataPoint{{Label: hostile, Length: 1}},
				result: &DecodedMessage{Letters: []deadletter.Letter{{Reason: hostile, Detail: hostile}}, Decoded: &event.Decoded{State: []byte(hostile)}},
			},
			"outcome": &Replayed{Refused: map[string]uint64{hostile: 1}},
			"difference": &Difference{
				Refused: map[string]uint64{hostile: 1},
				Points:  []PointDifference{{DeviceID: 1, Label: hostile, Changed: 1, Examples: []Example{{Before: hostile, After: hostile}}}},
			},
		} {
			out := text(t, w)
			for _, r := range strings.ReplaceAll(out, "\n", "") {
				require.True(t, strconv.IsPrint(r), "%q in the text of %s", r, name)
			}
			assert.NotContains(t, "\n"+out, "\nforged", name)
		}
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	r := deadletter.NewRecorder(streams)
	for i, reason := range []string{"bad_json", "unknown_pin", "bad_json"} {
		require.NoError(t, r.Record(t.Context(), []deadletter.Letter{{Stage: "decoder", Reason: reason, MAC: "e4fd45f654be", ID: event.PlaceID(1, uint64(i+1))}}))
	}
	filter := deadletter.Filter{Reason: "bad_json"}
	var done, total uint64
	n, err := Purge(t.Context(), streams.JetStream(), filter, func(d, of uint64) { done, total = d, of })
	require.NoError(t, err)
	assert.Equal(t, []uint64{2, 2, 2}, []uint64{n, done, total})
	left, err := ListLetters(t.Context(), streams.JetStream(), deadletter.Filter{})
	require.NoError(t, err)
	assert.Contains(t, text(t, left), "unknown_pin")
	assert.NotContains(t, text(t, left), "bad_json")
	groups, err := ListGroups(t.Context(), streams.JetStream(), deadletter.Filter{})
	require.NoError(t, err)
	assert.EqualValues(t, 1, groups.Kept())
	n, err = Purge(t.Context(), streams.JetStream(), filter, func(uint64, uint64) {})
	require.NoError(t, err)
	assert.Zero(t, n)
}

func TestLayout(t *testing.T) {
	t.Parallel()
	points := []MetadataPoint{
		{ID: 1, Label: "Temperature", Offset: 1, Length: 2},
		{ID: 2, Label: "Humidity", Offset: 2, Length: 2},
	}
	assert.Equal(t, []string{
		"byte   0  01",
		`byte   1  83  data point 1 ("Temperature"), byte 1 of 2`,
		`byte   2  02  data point 1 ("Temperature"), byte 2 of 2; data point 2 ("Humidity"), byte 1 of 2`,
		`byte   3  --  data point 2 ("Humidity"), byte 2 of 2`,
	}, layout([]byte{0x01, 0x83, 0x02}, points))
	assert.Len(t, layout(make([]byte, 5000), nil), 513)
	r := DecodedMessage{
		Decoded: &event.Decoded{Values: []event.DataPoint{{DataPointID: 1, Number: 25.5, Unit: "°C"}}},
		Letters: []deadletter.Letter{{DataPointID: 2, Detail: "beyond the end"}},
	}
	assert.Equal(t, []string{`data point 1 ("Temperature"): 25.5 °C`, `data point 2 ("Humidity"): refused: beyond the end`}, r.values(points))
}
