package stream

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

func configOf(t *testing.T, c *Client, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := c.js.Stream(t.Context(), name)
	require.NoError(t, err)
	return s.CachedInfo().Config
}

func TestSetUpMakesTheShippedStreamsOnce(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, j := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	missing, err := operator.Differences(t.Context())
	require.NoError(t, err)
	assert.Contains(t, missing, "stream RAW does not exist")
	assert.Contains(t, missing, "consumer writer of DECODED does not exist")
	would, err := operator.SetUp(t.Context(), Sizes{}, true)
	require.NoError(t, err)
	assert.Len(t, would, len(missing))
	_, err = operator.js.Stream(t.Context(), "RAW")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound, "a dry run makes nothing")

	made, err := operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	assert.Equal(t, would, made)
	again, err := operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	assert.Empty(t, again, "the second time changes nothing")
	differences, err := operator.Differences(t.Context())
	require.NoError(t, err)
	assert.Empty(t, differences)
	assert.False(t, j.has("waiting"))
	for _, name := range []string{"RAW", "DECODED"} {
		assert.Zero(t, configOf(t, operator, name).MaxAge, "the keeper trims, the server does not")
	}
}

// An operator's choices stay, and doctor hears of them; what the program relies on does
// not.
func TestSetUpKeepsWhatAnOperatorChanged(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	_, err := operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	shipped := configOf(t, operator, "RAW")
	edited := shipped
	edited.MaxBytes, edited.MaxMsgSize, edited.Compression = 1<<30, 1<<20, jetstream.NoCompression
	edited.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "f2.raw.>", Destination: "f2.raw.>"}
	edited.RePublish = &jetstream.RePublish{Source: "f2.raw.>", Destination: "copy.>"}
	edited.Metadata = map[string]string{"owner": "me"}
	kept, err := operator.js.UpdateStream(t.Context(), edited)
	require.NoError(t, err)
	want := kept.CachedInfo().Config
	edited.MaxAge, edited.AllowAtomicPublish, edited.Description = time.Hour, false, "mine"
	_, err = operator.js.UpdateStream(t.Context(), edited)
	require.NoError(t, err)

	changes, err := operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	assert.Len(t, changes, 3, changes)
	assert.Contains(t, changes, "stream RAW: max_age is 3600000000000, should be 0")
	assert.Equal(t, want, configOf(t, operator, "RAW"))
	differences, err := operator.Differences(t.Context())
	require.NoError(t, err)
	require.Len(t, differences, 5)
	assert.Contains(t, differences, "stream RAW: max_bytes is 1073741824, should be 8589934592")
	assert.Contains(t, differences, `stream RAW: compression is "none", should be "s2"`)
}

// A mesh of the last release: RAW and DECODED expired, DEAD_LETTER stopped when it was
// full, LATEST was copied by the server.
func TestSetUpMigratesTheLastRelease(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	former := map[string]func(*jetstream.StreamConfig){
		"raw":         func(c *jetstream.StreamConfig) { c.MaxAge, c.MaxBytes = 168*time.Hour, 16<<30 },
		"decoded":     func(c *jetstream.StreamConfig) { c.MaxAge = 72 * time.Hour },
		"dead_letter": func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgsPerSubject = jetstream.DiscardNew, -1 },
		"latest": func(c *jetstream.StreamConfig) {
			c.PersistMode, c.AllowAtomicPublish, c.Discard = jetstream.AsyncPersistMode, false, jetstream.DiscardNew
			c.Sources = []*jetstream.StreamSource{{Name: "DECODED", SubjectTransforms: []jetstream.SubjectTransformConfig{{Source: "f2.decoded.>", Destination: "$KV.LATEST.>"}}}}
			c.Subjects = nil
		},
	}
	for name, change := range former {
		var config jetstream.StreamConfig
		require.NoError(t, readJSON(natsfiles.Files, "stream_"+name+".json", &config))
		change(&config)
		_, err := operator.js.CreateStream(t.Context(), config)
		require.NoError(t, err, name)
	}
	const letter = "f2.dead.writer.22003.e4fd45f654be"
	for range 150 {
		_, err := operator.js.Publish(t.Context(), letter, nil)
		require.NoError(t, err)
	}
	for _, component := range []string{"sensor-1", "sensor-2", "sensor-1"} {
		_, err := operator.js.Publish(t.Context(), "f2.decoded.e4fd45f654be.sensor-mode.1."+component, []byte(component))
		require.NoError(t, err)
	}
	state := func() (s jetstream.StreamState, last *jetstream.RawStreamMsg) {
		stream, err := operator.js.Stream(t.Context(), "KV_LATEST")
		require.NoError(t, err)
		if last, err = stream.GetLastMsgForSubject(t.Context(), "$KV.LATEST.e4fd45f654be.sensor-mode.1.sensor-1"); err != nil {
			require.ErrorIs(t, err, jetstream.ErrMsgNotFound)
		}
		return stream.CachedInfo().State, last
	}
	require.Eventually(t, func() bool { s, _ := state(); return s.LastSeq == 3 }, patience, 10*time.Millisecond)
	before, last := state()

	_, err := operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	after, kept := state()
	assert.Equal(t, before.Msgs, after.Msgs)
	assert.Equal(t, last.Time, kept.Time, "LATEST says when each was heard")
	assert.Equal(t, last.Sequence, kept.Sequence)
	_, err = operator.js.Stream(t.Context(), "KV_LATEST_FORMER")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	assert.Zero(t, configOf(t, operator, "RAW").MaxAge)
	assert.EqualValues(t, 16<<30, configOf(t, operator, "RAW").MaxBytes, "the operator's size stays")
	assert.Zero(t, configOf(t, operator, "DECODED").MaxAge)
	dead := configOf(t, operator, "DEAD_LETTER")
	assert.Equal(t, jetstream.DiscardOld, dead.Discard)
	assert.EqualValues(t, 100, dead.MaxMsgsPerSubject)
	s, err := operator.js.Stream(t.Context(), "DEAD_LETTER")
	require.NoError(t, err)
	assert.EqualValues(t, 100, s.CachedInfo().State.Msgs, "the last of them stay")
	var latest jetstream.StreamConfig
	require.NoError(t, readJSON(natsfiles.Files, "stream_latest.json", &latest))
	now := configOf(t, operator, "KV_LATEST")
	assert.Equal(t, latest.Subjects, now.Subjects)
	assert.Equal(t, latest.PersistMode, now.PersistMode)
	assert.True(t, now.AllowAtomicPublish)
	assert.Empty(t, now.Sources)
	again, err := operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	assert.Empty(t, again)
}

func TestSetUpSizesForARate(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	sizes := Sizes{Rate: 300, Free: func() (uint64, error) { return 1 << 40, nil }}
	changes, err := operator.SetUp(t.Context(), sizes, false)
	require.NoError(t, err)
	t.Log(changes)
	raw := configOf(t, operator, "RAW")
	assert.Equal(t, 300, DeclaredRate(&raw))
	assert.InDelta(t, 90.72e9, float64(raw.MaxBytes), 1e6, "300/s of 400 bytes for 7 days are 80% of it")
	assert.InDelta(t, 43.74e9, float64(configOf(t, operator, "DECODED").MaxBytes), 1e6)
	differences, err := operator.Differences(t.Context())
	require.NoError(t, err)
	assert.Empty(t, differences, "what setup chose is no difference")

	raw.MaxBytes = 1 << 30 // the operator's edit
	_, err = operator.js.UpdateStream(t.Context(), raw)
	require.NoError(t, err)
	changes, err = operator.SetUp(t.Context(), sizes, false)
	require.NoError(t, err)
	assert.Empty(t, changes, "the same rate, and the edit stays")

	sizes.Rate = 1000
	sizes.Free = func() (uint64, error) { return 60 << 30, nil }
	_, err = operator.SetUp(t.Context(), sizes, false)
	require.NoError(t, err)
	raw = configOf(t, operator, "RAW")
	sum := raw.MaxBytes + configOf(t, operator, "DECODED").MaxBytes
	assert.Less(t, sum, int64(30<<30), "no more than half of the disk, with the other streams")
	assert.Greater(t, sum, int64(20<<30))
	_, err = operator.SetUp(t.Context(), Sizes{RawBytes: 64 << 20}, false)
	require.NoError(t, err)
	raw = configOf(t, operator, "RAW")
	assert.EqualValues(t, 64<<20, raw.MaxBytes)
	assert.Zero(t, DeclaredRate(&raw), "it is not for a rate")
}

func TestChooseBytes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		rate         int
		room         int64
		raw, decoded int64
	}{
		{10, -1, 3024 << 20, 1458 << 20}, // roughly
		{300, 0, leastBytes, leastBytes},
		{1, -1, 302 << 20, 146 << 20},
		{300, 16 << 30, 11054 << 20, 5330 << 20},
	} {
		raw, decoded := chooseBytes(test.rate, test.room)
		assert.InEpsilon(t, test.raw, raw, 0.05, "%+v", test)
		assert.InEpsilon(t, test.decoded, decoded, 0.05, "%+v", test)
	}
}

// A service waits for what setup has yet to make, and says at once what that is and
// who makes it. It cannot make it.
func TestServicesWaitForSetup(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	decoder, j := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Decoder, natsfiles.Files)
	found := make(chan error, 1)
	go func() {
		err := decoder.Wait(t.Context(), "DECODED")
		if err == nil {
			_, err = decoder.Open(t.Context(), "RAW", "decoder")
		}
		found <- err
	}()
	require.Eventually(t, func() bool { return j.has(`for="stream DECODED"`) && j.has("f2mesh setup --streams") }, patience, 10*time.Millisecond)
	require.NoError(t, operator.Ensure(t.Context(), "RAW", "DECODED"))
	require.Eventually(t, func() bool { return j.has(`for="consumer decoder of RAW"`) }, patience, 10*time.Millisecond)
	_, err := operator.Consumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	require.NoError(t, <-found)

	impatient, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	_, err = operator.Open(impatient, "DECODED", "writer")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, operator.Ensure(t.Context(), "NO_SUCH_FILE"), "stream_no_such_file.json")
	require.Error(t, operator.Ready(t.Context(), "AUDIT"))
}
