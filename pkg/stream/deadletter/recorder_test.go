package deadletter_test

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// refused are n letters of messages of one controller, from a place in RAW on.
func refused(from, n int) []deadletter.Letter {
	letters := make([]deadletter.Letter, n)
	for i := range letters {
		letters[i] = deadletter.Letter{
			Stage: "decoder", Reason: "bad_json", Detail: "at byte 3", MAC: "e4fd45f654be",
			ID: event.PlaceID(1, uint64(from+i)), Received: moment, Time: moment,
		}
	}
	return letters
}

// kept returns the counts of the kept letters of a subject, in their order.
func kept(t *testing.T, streams *stream.Client, subject string) (counts []int) {
	t.Helper()
	s, err := streams.JetStream().Stream(t.Context(), stream.DeadLetter)
	require.NoError(t, err)
	for sequence := uint64(1); ; {
		m, err := s.GetMsg(t.Context(), sequence, jetstream.WithGetMsgSubject(subject))
		if err != nil {
			require.ErrorIs(t, err, jetstream.ErrMsgNotFound)
			return counts
		}
		count, err := strconv.Atoi(m.Header.Get(deadletter.HeaderCount))
		require.NoError(t, err)
		counts = append(counts, count)
		sequence = m.Sequence + 1
	}
}

func span(from, to int) (all []int) {
	for i := from; i <= to; i++ {
		all = append(all, i)
	}
	return all
}

// TestRecorderBounds: of each subject the last are kept and all are counted,
// also by the next process; another controller's are not touched.
func TestRecorderBounds(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	require.NoError(t, streams.Ensure(t.Context(), stream.DeadLetter))
	const subject = "f2.dead.decoder.bad_json.e4fd45f654be"
	r := deadletter.NewRecorder(streams)
	other := deadletter.Letter{Stage: "decoder", Reason: "bad_json", MAC: "e4fd45f654bf", ID: event.PlaceID(1, 1), Time: moment}
	require.NoError(t, r.Record(t.Context(), []deadletter.Letter{other}))
	require.NoError(t, r.Record(t.Context(), refused(2, 60)))
	assert.Equal(t, span(1, 60), kept(t, streams, subject))
	require.NoError(t, r.Record(t.Context(), refused(62, 3000)), "more than one batch")
	assert.Equal(t, span(2961, 3060), kept(t, streams, subject))

	again := deadletter.NewRecorder(streams)
	require.NoError(t, again.Record(t.Context(), refused(3062, 1)))
	assert.Equal(t, span(2962, 3061), kept(t, streams, subject))
	assert.Equal(t, span(1, 1), kept(t, streams, other.Subject()))
}

// TestRecorderIdempotent: what is delivered again is not counted again, what is
// behind it is; an operator's replay is.
func TestRecorderIdempotent(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	require.NoError(t, streams.Ensure(t.Context(), stream.DeadLetter))
	const subject = "f2.dead.decoder.bad_json.e4fd45f654be"
	for _, step := range []struct {
		from, n, want int
	}{{10, 5, 5}, {10, 5, 5}, {12, 4, 6}, {1, 3, 9}, {1, 3, 9}, {16, 1, 10}} {
		r := deadletter.NewRecorder(streams) // each a process that has just started
		require.NoError(t, r.Record(t.Context(), refused(step.from, step.n)))
		assert.Equal(t, span(1, step.want), kept(t, streams, subject), fmt.Sprint(step))
	}
	replayed := refused(2, 1)
	replayed[0].Replayed = true
	r := deadletter.NewRecorder(streams)
	require.NoError(t, r.Record(t.Context(), replayed))
	require.NoError(t, r.Record(t.Context(), refused(16, 1)), "the replay does not move the place back")
	assert.Equal(t, span(1, 11), kept(t, streams, subject))

	points := refused(20, 3)
	for i := range points {
		points[i].ID, points[i].Part, points[i].DataPointID = event.PlaceID(1, 20), true, int32(i+1)
	}
	require.NoError(t, deadletter.NewRecorder(streams).Record(t.Context(), points[:2]), "a torn store")
	require.NoError(t, deadletter.NewRecorder(streams).Record(t.Context(), points))
	assert.Equal(t, span(1, 14), kept(t, streams, subject))
}

// TestRecorderLate: the letter of a message that is delivered after newer ones is stored, once,
// with the rights that each stage has.
func TestRecorderLate(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{natsserver.Bridge, natsserver.Decoder, natsserver.Writer} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			testRecorderLate(t, stage)
		})
	}
}

func testRecorderLate(t *testing.T, stage string) {
	t.Helper()
	operator, streams := streamtest.NewClientAs(t, stage)
	require.NoError(t, operator.Ensure(t.Context(), stream.DeadLetter))
	subject := "f2.dead." + stage + ".bad_json.e4fd45f654be"
	refused := func(from, n int) []deadletter.Letter {
		letters := refused(from, n)
		for i := range letters {
			letters[i].Stage = stage
		}
		return letters
	}
	require.NoError(t, deadletter.NewRecorder(streams).Record(t.Context(), refused(10, 2)), "an earlier process")
	r := deadletter.NewRecorder(streams)
	for _, step := range []struct {
		from, n, want int
	}{{20, 2, 4}, {15, 3, 7}, {15, 3, 7}, {20, 2, 7}, {10, 2, 7}, {22, 1, 8}} {
		require.NoError(t, r.Record(t.Context(), refused(step.from, step.n)))
		assert.Equal(t, span(1, step.want), kept(t, operator, subject), fmt.Sprint(step))
	}

	// The process ends; 5 and 18 were on their way.
	r = deadletter.NewRecorder(streams)
	for _, step := range []struct {
		from, n, want int
	}{{18, 1, 9}, {15, 4, 9}, {5, 1, 10}, {5, 1, 10}, {23, 1, 11}} {
		require.NoError(t, r.Record(t.Context(), refused(step.from, step.n)))
		assert.Equal(t, span(1, step.want), kept(t, operator, subject), fmt.Sprint(step))
	}

	// What is older than all that can be kept may have been stored.
	require.NoError(t, r.Record(t.Context(), refused(1000, deadletter.Kept)))
	r = deadletter.NewRecorder(streams)
	require.NoError(t, r.Record(t.Context(), refused(999, 1)))
	require.NoError(t, r.Record(t.Context(), refused(1000, 2)))
	assert.Len(t, kept(t, operator, subject), deadletter.Kept)
	assert.Equal(t, deadletter.Kept+11, kept(t, operator, subject)[deadletter.Kept-1])
}

// TestRecorderPayload: what is in RAW is referred to, what is not is kept, cut.
func TestRecorderPayload(t *testing.T) {
	t.Parallel()
	streams := streamtest.NewClient(t)
	require.NoError(t, streams.Ensure(t.Context(), stream.DeadLetter))
	r := deadletter.NewRecorder(streams)
	long := bytes.Repeat([]byte{'x'}, 1<<20)
	require.NoError(t, r.Record(t.Context(), []deadletter.Letter{
		{Stage: "bridge", Reason: "bad_levels", Payload: long, Time: moment},
		{Stage: "bridge", Reason: "bad_levels", Payload: []byte("short"), Time: moment},
		{Stage: "decoder", Reason: "bad_json", ID: event.PlaceID(7, 42), Payload: long, Time: moment},
	}))
	s, err := streams.JetStream().Stream(t.Context(), stream.DeadLetter)
	require.NoError(t, err)
	message := func(sequence uint64) *jetstream.RawStreamMsg {
		m, err := s.GetMsg(t.Context(), sequence)
		require.NoError(t, err)
		return m
	}
	cut := message(1)
	assert.Len(t, cut.Data, deadletter.MaxPayload)
	assert.Equal(t, "1048576", cut.Header.Get(deadletter.HeaderPayloadLength))
	assert.Len(t, cut.Header.Get(deadletter.HeaderPayloadSHA256), 64)
	whole := message(2)
	assert.Equal(t, "short", string(whole.Data))
	assert.NotContains(t, whole.Header, deadletter.HeaderPayloadLength)
	referring := message(3)
	assert.Empty(t, referring.Data)
	assert.Equal(t, "42", referring.Header.Get(deadletter.HeaderRawSequence))
	assert.Equal(t, "0000000000000007000000000000002a", referring.Header.Get(event.HeaderID))
}
