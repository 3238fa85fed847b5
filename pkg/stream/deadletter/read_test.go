package deadletter_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// read returns the letters that f chooses.
func read(t *testing.T, streams *stream.Client, f deadletter.Filter) (letters []deadletter.Stored) {
	t.Helper()
	require.NoError(t, f.Read(t.Context(), streams.JetStream(), func(l deadletter.Stored) error {
		letters = append(letters, l)
		return nil
	}))
	return letters
}

// TestRead: a letter is read as it was recorded.
func TestRead(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	require.NoError(t, streams.Ensure(t.Context(), stream.DeadLetter))
	sent := []deadletter.Letter{
		{
			Stage: "decoder", Reason: "out_of_range", Detail: "data point 3 (\"°C\"):\nx", MAC: "e4fd45f654be", Topic: "f2.raw.x", ID: event.PlaceID(7, 42),
			Received: moment.UTC(), Time: moment.UTC(), DataPointID: 3, Part: true, Decoded: 2, Member: `"a"`, MetadataVersion: "00ff", SQLState: "22003",
		},
		{Stage: "bridge", Reason: "bad_levels", Topic: "a/\x00\"b\"", Payload: []byte("short"), Received: moment.UTC(), Time: moment.UTC()},
		{Stage: "bridge", Reason: "payload_too_large", MAC: "e4fd45f654be", Topic: "tele/f2-E4FD45F654BE/sensor-mode/J1/sensor-1", Payload: bytes.Repeat([]byte("x"), 9000), Received: moment.UTC(), Time: moment.UTC()},
	}
	require.NoError(t, deadletter.NewRecorder(streams).Record(t.Context(), sent))
	got := read(t, streams, deadletter.Filter{})
	require.Len(t, got, 3)
	for i := range got {
		l := got[i].Letter
		if i == 2 {
			assert.False(t, got[i].Whole())
			assert.Equal(t, 9000, got[i].Length)
			l.Payload = sent[i].Payload
		} else {
			assert.True(t, got[i].Whole())
		}
		if len(l.Payload) == 0 {
			l.Payload = nil
		}
		assert.Equal(t, sent[i], l)
		assert.EqualValues(t, i+1, got[i].Sequence)
		assert.EqualValues(t, 1, got[i].Count)
	}
	assert.Zero(t, got[0].Digest)
	assert.Equal(t, event.Digest(sent[1].Topic, sent[1].Payload), got[1].Digest, "a topic that does not parse, as it came")
	assert.Equal(t, event.Digest("f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", sent[2].Payload), got[2].Digest, "of the whole payload")

	one, err := deadletter.Get(t.Context(), streams.JetStream(), 2)
	require.NoError(t, err)
	assert.Equal(t, got[1], one)
	_, err = deadletter.Get(t.Context(), streams.JetStream(), 9)
	require.ErrorContains(t, err, "letter 9 of DEAD_LETTER")
}

func TestFilter(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	require.NoError(t, streams.Ensure(t.Context(), stream.DeadLetter))
	r := deadletter.NewRecorder(streams)
	for _, l := range []deadletter.Letter{
		{Stage: "bridge", Reason: "bad_levels"},
		{Stage: "decoder", Reason: "bad_json", MAC: "e4fd45f654be", ID: event.PlaceID(1, 1)},
		{Stage: "decoder", Reason: "bad_json", MAC: "e4fd45f654bf", ID: event.PlaceID(1, 2)},
		{Stage: "writer", Reason: "bad_decoded", MAC: "e4fd45f654be", ID: event.PlaceID(1, 3)},
	} {
		require.NoError(t, r.Record(t.Context(), []deadletter.Letter{l}))
	}
	for want, f := range map[int]deadletter.Filter{
		4: {}, 2: {MAC: "e4fd45f654be"}, 1: {Unknown: true}, 0: {Since: time.Now()},
	} {
		assert.Len(t, read(t, streams, f), want, "%+v", f)
	}
	assert.Equal(t, topic.MAC("e4fd45f654bf"), read(t, streams, deadletter.Filter{Stage: "decoder", Reason: "bad_json"})[1].MAC)
	assert.Empty(t, read(t, streams, deadletter.Filter{Until: moment}))
}

// TestRemoveKeepsCount: the next letter is counted behind those that were removed, and
// what is delivered again is still known.
func TestRemoveKeepsCount(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	require.NoError(t, streams.Ensure(t.Context(), stream.DeadLetter))
	require.NoError(t, deadletter.NewRecorder(streams).Record(t.Context(), refused(1, 5)))
	letters := read(t, streams, deadletter.Filter{})
	require.NoError(t, deadletter.Remove(t.Context(), streams.JetStream(), letters[:2]), "not the newest: nothing stands for it")
	assert.Len(t, read(t, streams, deadletter.Filter{}), 3)
	require.NoError(t, deadletter.Remove(t.Context(), streams.JetStream(), letters))
	require.NoError(t, deadletter.Remove(t.Context(), streams.JetStream(), letters), "once more")
	left := read(t, streams, deadletter.Filter{})
	require.Len(t, left, 1)
	assert.True(t, left[0].Removed)
	assert.EqualValues(t, 5, left[0].Count)

	again := deadletter.NewRecorder(streams) // another process
	require.NoError(t, again.Record(t.Context(), refused(3, 4)))
	left = read(t, streams, deadletter.Filter{})
	require.Len(t, left, 2, "3 to 5 were there before")
	assert.EqualValues(t, 6, left[1].Count)

	// A letter that came meanwhile is the newest, and nothing stands for another.
	require.NoError(t, again.Record(t.Context(), refused(7, 1)))
	require.NoError(t, deadletter.Remove(t.Context(), streams.JetStream(), left[1:]))
	left = read(t, streams, deadletter.Filter{})
	require.Len(t, left, 2)
	assert.False(t, left[1].Removed)
	s, err := streams.JetStream().Stream(t.Context(), stream.DeadLetter)
	require.NoError(t, err)
	_, err = s.GetMsg(t.Context(), letters[0].Sequence)
	require.ErrorIs(t, err, jetstream.ErrMsgNotFound)
}

func TestGroups(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	require.NoError(t, streams.Ensure(t.Context(), stream.DeadLetter))
	require.NoError(t, deadletter.NewRecorder(streams).Record(t.Context(), refused(1, deadletter.Kept+5)))
	require.NoError(t, deadletter.NewRecorder(streams).Record(t.Context(), []deadletter.Letter{{Stage: "bridge", Reason: "bad_levels", Detail: "5 levels"}}))
	groups, err := deadletter.Filter{}.Groups(t.Context(), streams.JetStream())
	require.NoError(t, err)
	require.Len(t, groups, 2)
	assert.Equal(t, deadletter.Group{Stage: "bridge", Reason: "bad_levels", Kept: 1, Total: 1, First: groups[0].First, Last: groups[0].First, Detail: "5 levels"}, groups[0])
	assert.Equal(t, topic.MAC("e4fd45f654be"), groups[1].MAC)
	assert.EqualValues(t, deadletter.Kept, groups[1].Kept)
	assert.EqualValues(t, deadletter.Kept+5, groups[1].Total)

	require.NoError(t, deadletter.Remove(t.Context(), streams.JetStream(), read(t, streams, deadletter.Filter{Stage: "decoder"})))
	groups, err = deadletter.Filter{Stage: "decoder"}.Groups(t.Context(), streams.JetStream())
	require.NoError(t, err)
	require.Len(t, groups, 1)
	assert.Zero(t, groups[0].Kept)
	assert.EqualValues(t, deadletter.Kept+5, groups[0].Total)
}

func TestNewFilter(t *testing.T) {
	t.Parallel()
	got, err := deadletter.NewFilter("decoder", "bad_json", "E4-FD-45-F6-54-BE")
	require.NoError(t, err)
	assert.Equal(t, deadletter.Filter{Stage: "decoder", Reason: "bad_json", MAC: "e4fd45f654be"}, got)
	got, err = deadletter.NewFilter("", "", "unknown")
	require.NoError(t, err)
	assert.Equal(t, deadletter.Filter{Unknown: true}, got)
	_, err = deadletter.NewFilter("", "", "here")
	require.ErrorContains(t, err, "not a MAC address")
	for _, reason := range []string{"*.>", "bad.json", "a*b", "Bad"} {
		_, err = deadletter.NewFilter("", reason, "")
		require.ErrorContains(t, err, "is not a reason")
	}
}
