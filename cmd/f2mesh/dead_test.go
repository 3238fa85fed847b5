package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

func TestDeadFilter(t *testing.T) {
	t.Parallel()
	since := &pointInTime{time.Now()}
	got, err := (&deadFilter{Stage: "decoder", Reason: "bad_json", MAC: "E4-FD-45-F6-54-BE", Since: since}).filter()
	require.NoError(t, err)
	assert.Equal(t, deadletter.Filter{Stage: "decoder", Reason: "bad_json", MAC: "e4fd45f654be", Since: since.Time}, got)
	got, err = (&deadFilter{MAC: "unknown"}).filter()
	require.NoError(t, err)
	assert.True(t, got.Unknown)
	_, err = (&deadFilter{MAC: "here"}).filter()
	require.ErrorContains(t, err, "not a MAC address")
	_, err = (&deadFilter{Reason: "*.>"}).filter()
	require.ErrorContains(t, err, "is not a reason")
}

// TestShownPayload: what may be personal is shown only where somebody asks for it.
func TestShownPayload(t *testing.T) {
	t.Parallel()
	const secret = "04:A2:33:1B"
	for name, s := range map[string]shownMessage{
		"personal": {body: []byte(secret), length: len(secret), personal: true},
		"other":    {body: []byte(secret), length: len(secret)},
	} {
		var hidden, revealed bytes.Buffer
		s.print(&hidden, false)
		s.print(&revealed, true)
		assert.Equal(t, name == "personal", !bytes.Contains(hidden.Bytes(), []byte(secret)), name)
		assert.Contains(t, revealed.String(), secret)
	}
	var cut bytes.Buffer
	(&shownMessage{body: make([]byte, 10_000), length: 10_000}).print(&cut, false)
	assert.Contains(t, cut.String(), "the first 4096 of 10000 bytes")
}

// TestLook: a payload is personal where a reader sent it, and where nobody can tell
// who did.
func TestLook(t *testing.T) {
	t.Parallel()
	m := new(replaying)
	for name, personal := range map[string]bool{
		"tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1":           false,
		"tele/f2-e4fd45f654be/access-control-mode/J1/reader-1":   true,
		"f2.decoded.e4fd45f654be.access-control-mode.1.reader-1": true,
		"f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1":         false,
		"nonsense": true,
	} {
		s, err := m.look(t.Context(), &deadletter.Stored{Letter: deadletter.Letter{Topic: name}})
		require.NoError(t, err)
		assert.Equal(t, personal, s.personal, name)
	}
}

// TestDeadIsHarmless prints hostile texts.
func TestDeadIsHarmless(t *testing.T) {
	t.Parallel()
	for _, text := range hostileTexts() {
		for name, print := range map[string]func(out io.Writer){
			"groups": func(out io.Writer) {
				_ = printGroups(out, []deadletter.Group{{Stage: text, Reason: text, Detail: text}})
			},
			"letter": func(out io.Writer) {
				printLetter(out, &deadletter.Stored{Letter: deadletter.Letter{Stage: text, Reason: text, Detail: text, Topic: text, Member: text, SQLState: text, MetadataVersion: text}})
			},
			"payload": func(out io.Writer) {
				(&shownMessage{
					body: []byte(text), length: len(text), frame: []byte(text), points: []replay.Point{{Label: text, Length: 1}},
					result: &replay.Result{Letters: []deadletter.Letter{{Reason: text, Detail: text}}, Decoded: &event.Decoded{State: []byte(text)}},
				}).print(out, false)
			},
			"outcome": func(out io.Writer) { printOutcome(out, &replay.Outcome{Refused: map[string]uint64{text: 1}}, false) },
			"difference": func(out io.Writer) {
				_ = printDifference(out, &replay.Difference{
					Refused: map[string]uint64{text: 1},
					Points:  []replay.PointDifference{{DeviceID: 1, Label: text, Changed: 1, Examples: []replay.Example{{Before: text, After: text}}}},
				}, true)
			},
		} {
			var out bytes.Buffer
			print(&out)
			for line := range bytes.SplitSeq(bytes.TrimSpace(out.Bytes()), []byte("\n")) {
				harmless(t, string(line))
			}
			assert.NotContains(t, "\n"+out.String(), "\nforged", name)
		}
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	require.NoError(t, streams.Ensure(t.Context(), stream.DeadLetter))
	r := deadletter.NewRecorder(streams)
	for i, reason := range []string{"bad_json", "unknown_pin", "bad_json"} {
		require.NoError(t, r.Record(t.Context(), []deadletter.Letter{{Stage: "decoder", Reason: reason, MAC: mac, ID: event.PlaceID(1, uint64(i+1))}}))
	}
	n, err := purge(t.Context(), streams.JetStream(), deadletter.Filter{Reason: "bad_json"})
	require.NoError(t, err)
	assert.Equal(t, 2, n)
	var out bytes.Buffer
	require.NoError(t, listLetters(t.Context(), streams.JetStream(), deadletter.Filter{}, &out, false))
	assert.Contains(t, out.String(), "unknown_pin")
	assert.NotContains(t, out.String(), "bad_json")
	n, err = purge(t.Context(), streams.JetStream(), deadletter.Filter{Reason: "bad_json"})
	require.NoError(t, err)
	assert.Zero(t, n)
}
