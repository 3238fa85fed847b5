package replay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// TestLateController: a controller that was registered late gets its history, once.
func TestLateController(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.scale = 0
	ids := m.receive("1", "2", "open")
	m.refuse(ids...)
	out := m.replay(replay.Letters{})
	assert.Equal(t, &replay.Replayed{Letters: 3, Refused: map[string]uint64{"unknown_controller": 3}}, out, "the control")
	assert.Equal(t, 3, m.letters())

	m.scale = 1
	out = m.replay(replay.Letters{DryRun: true})
	assert.Equal(t, &replay.Replayed{DryRun: true, Letters: 3, Accepted: 3, Refused: map[string]uint64{}}, out)
	assert.Zero(t, m.taken())
	assert.Equal(t, 3, m.letters())

	var done, total uint64
	out = m.replay(replay.Letters{Progress: func(d, of uint64) { done, total = d, of }})
	assert.Equal(t, &replay.Replayed{Letters: 3, Accepted: 3, Refused: map[string]uint64{}}, out)
	assert.EqualValues(t, 3, done)
	assert.EqualValues(t, 3, total)
	assert.Equal(t, 4, m.count("SELECT count(*) FROM measurement"))
	assert.Equal(t, 1, m.count("SELECT count(*) FROM device_event WHERE event_id = $1::text::uuid", ids[2].String()))
	assert.Zero(t, m.letters())

	// The same letters once more: nothing is put on DECODED again.
	m.scale = 0
	require.NoError(t, deadletter.NewRecorder(m.Streams).Record(t.Context(), []deadletter.Letter{
		{Stage: "decoder", Reason: "bad_json", MAC: mac, ID: ids[0]},
	}))
	m.scale = 1
	before := m.taken()
	out = m.replay(replay.Letters{})
	assert.EqualValues(t, 1, out.Accepted)
	assert.Equal(t, before, m.taken())
}

// TestReplayOnePoint: of a message in part the point that is right now is written,
// and its letter goes; the other stays.
func TestReplayOnePoint(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.points, m.bad = []int32{1, 2, 3}, map[int32]bool{2: true, 3: true}
	ids := m.receive("5")
	m.pass()
	m.refuse(ids...)
	assert.Equal(t, 1, m.count("SELECT count(*) FROM measurement"))
	m.bad = map[int32]bool{3: true}
	out := m.replay(replay.Letters{Filter: deadletter.Filter{Reason: "out_of_range"}})
	assert.Equal(t, &replay.Replayed{Letters: 2, Accepted: 1, Refused: map[string]uint64{"out_of_range": 1}}, out)
	assert.Equal(t, 10, m.count("SELECT value::int FROM measurement WHERE datapoint_id = 2"))
	assert.Equal(t, 1, m.letters())
}

// TestReplayNotWritten: a letter goes only when the tables have the rows.
func TestReplayNotWritten(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.scale = 0
	m.refuse(m.receive("1")...)
	m.scale = 1
	m.mu.Lock()
	m.writes = false
	m.mu.Unlock()
	out := m.replay(replay.Letters{})
	assert.Equal(t, &replay.Replayed{Letters: 1, NotWritten: 1, Refused: map[string]uint64{}}, out)
	assert.Equal(t, 1, m.letters())
}

// TestReplayReplaces only where it is asked to.
func TestReplayReplaces(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.points, m.bad = []int32{1, 2}, map[int32]bool{2: true}
	ids := m.receive("1", "2")
	m.pass()
	m.refuse(ids...)
	m.bad, m.scale = nil, 10
	out := m.replay(replay.Letters{Filter: deadletter.Filter{Until: time.Now()}})
	assert.EqualValues(t, 2, out.Accepted)
	assert.Equal(t, 1, m.count("SELECT value::int FROM measurement WHERE datapoint_id = 1 ORDER BY time LIMIT 1"), "what came first stays")
	assert.Equal(t, 2, m.count("SELECT count(*) FROM measurement_history WHERE reason = 'conflict'"))
	assert.Equal(t, 20, m.count("SELECT value::int FROM measurement WHERE datapoint_id = 2 ORDER BY time LIMIT 1"))

	m.bad = map[int32]bool{2: true}
	ids = m.receive("3")
	m.pass()
	m.refuse(ids...)
	m.bad, m.scale = nil, 100
	out = m.replay(replay.Letters{Replace: true})
	assert.EqualValues(t, 1, out.Accepted)
	assert.Equal(t, 300, m.count("SELECT value::int FROM measurement WHERE datapoint_id = 1 ORDER BY time DESC LIMIT 1"))
	assert.Equal(t, 1, m.count("SELECT count(*) FROM measurement_history WHERE reason = 'redecoded' AND value = 30"))
}

// TestReplayTrimmed: what RAW no longer holds, and letters that are no longer kept,
// are counted.
func TestReplayTrimmed(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.scale = 0
	ids := m.receive("1", "2")
	m.refuse(ids...)
	other := deadletter.Letter{Stage: "decoder", Reason: "bad_json", MAC: mac, ID: event.PlaceID(1, 1)}
	require.NoError(t, deadletter.NewRecorder(m.Streams).Record(t.Context(), []deadletter.Letter{other}))
	raw, err := m.Streams.JetStream().Stream(t.Context(), "RAW")
	require.NoError(t, err)
	require.NoError(t, raw.DeleteMsg(t.Context(), 1))
	m.scale = 1
	out := m.replay(replay.Letters{})
	assert.Equal(t, &replay.Replayed{Letters: 3, Accepted: 1, Trimmed: 2, Refused: map[string]uint64{}}, out)

	m.scale = 0
	var many []string
	for range deadletter.Kept + 7 {
		many = append(many, "4")
	}
	m.refuse(m.receive(many...)...)
	assert.EqualValues(t, 9, m.replay(replay.Letters{DryRun: true}).NotKept, "7, and those of the two before")
}

// TestReplayBridge: what never reached RAW is put there, once, where its topic is read
// now and the letter has all of it.
func TestReplayBridge(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	const name = "tele/f2-E4-FD-45-F6-54-BE/sensor-mode/J1/sensor-1"
	letters := []deadletter.Letter{
		{Stage: "bridge", Reason: "bad_component", MAC: mac, Topic: name, Payload: []byte("5"), Received: moment},
		{Stage: "bridge", Reason: "bad_levels", Topic: "nonsense", Payload: []byte("5"), Received: moment},
		{Stage: "bridge", Reason: "payload_too_large", MAC: mac, Topic: name, Payload: []byte(strings.Repeat("x", 5000)), Received: moment},
		{Stage: "bridge", Reason: deadletter.ReasonCopy, MAC: mac, Topic: name, Payload: []byte("5"), Received: moment},
	}
	require.NoError(t, deadletter.NewRecorder(m.Streams).Record(t.Context(), letters))
	out := m.replay(replay.Letters{DryRun: true})
	want := &replay.Replayed{DryRun: true, Letters: 3, Accepted: 1, Cut: 1, Refused: map[string]uint64{"bad_levels": 1}}
	assert.Equal(t, want, out)
	raw, err := m.Streams.JetStream().Stream(t.Context(), "RAW")
	require.NoError(t, err)
	require.Zero(t, raw.CachedInfo().State.Msgs)

	// A replay that was killed before it removed the letter.
	first := letters[0]
	require.NoError(t, deadletter.NewRecorder(m.Streams).Record(t.Context(), []deadletter.Letter{first}))
	assert.Equal(t, 5, m.letters())
	out = m.replay(replay.Letters{})
	assert.EqualValues(t, 2, out.Accepted)
	found, err := raw.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	assert.Equal(t, "f2.raw.tele."+mac+".sensor-mode.1.sensor-1", found.Subject)
	assert.Equal(t, "5", string(found.Data))
	assert.Equal(t, name, found.Header.Get(event.HeaderTopic))
	assert.Equal(t, moment.Format(time.RFC3339Nano), found.Header.Get(event.HeaderReceived))
	assert.Equal(t, "1", found.Header.Get(event.HeaderReplayed))
	assert.Equal(t, 3, m.letters())
	assert.Zero(t, m.replay(replay.Letters{}).Accepted)
	info, err := raw.Info(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 2, info.State.Msgs)
}

// TestFetch returns the message of a letter.
func TestFetch(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	ids := m.receive("7")
	found, err := m.Fetch(t.Context(), &deadletter.Stored{Letter: deadletter.Letter{ID: ids[0]}})
	require.NoError(t, err)
	assert.Equal(t, "7", string(found.Data))
	found, err = m.Fetch(t.Context(), &deadletter.Stored{Letter: deadletter.Letter{ID: event.PlaceID(1, 1)}})
	require.NoError(t, err)
	assert.Equal(t, (*stream.Message)(nil), found)
}

// TestShow decodes the message of a letter with the metadata of now.
func TestShow(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.scale = 0
	m.refuse(m.receive("7")...)
	m.scale = 1
	shown, err := m.Show(t.Context(), 1)
	require.NoError(t, err)
	var out strings.Builder
	_, err = shown.WriteTo(&out)
	require.NoError(t, err)
	for _, want := range []string{"\nreason      unknown_controller\n", "\npayload\n7\n", "\nbyte   0  37\n", "with the current metadata"} {
		assert.Contains(t, out.String(), want)
	}
	_, err = m.Show(t.Context(), 2)
	require.ErrorIs(t, err, jetstream.ErrMsgNotFound)
}
