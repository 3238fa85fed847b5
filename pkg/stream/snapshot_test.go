package stream_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

const snapshotSubject = "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-"

// filled is a stream of many messages, and a consumer that acknowledged some.
func filled(t *testing.T, messages, acknowledged int) jetstream.JetStream {
	t.Helper()
	client := streamtest.NewClient(t)
	require.NoError(t, client.Ensure(t.Context(), "RAW"))
	js := client.JetStream()
	for n := range messages {
		_, err := js.PublishAsync(fmt.Sprint(snapshotSubject, n), bytes.Repeat([]byte{byte(n)}, 5000))
		require.NoError(t, err)
	}
	<-js.PublishAsyncComplete()
	consumer, err := client.Consumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	batch, err := consumer.Fetch(acknowledged)
	require.NoError(t, err)
	for msg := range batch.Messages() {
		require.NoError(t, msg.DoubleAck(t.Context()))
	}
	require.NoError(t, batch.Error())
	return js
}

func save(t *testing.T, js jetstream.JetStream) (stream.Snapshot, []byte) {
	t.Helper()
	saved := new(bytes.Buffer)
	s, err := stream.Save(t.Context(), js, "RAW", saved)
	require.NoError(t, err)
	return s, saved.Bytes()
}

func TestSaveAndRestore(t *testing.T) {
	t.Parallel()
	js := filled(t, 600, 100)
	hold, err := stream.NewHold(t.Context(), js, []string{"RAW"})
	require.NoError(t, err)
	s, data := save(t, js)
	require.NoError(t, hold.Check(t.Context()))
	require.NoError(t, hold.Release(t.Context()))
	assert.EqualValues(t, 600, s.Messages)
	assert.Equal(t, []stream.Position{{Name: "decoder", AckFloor: 100}}, s.Consumers)

	err = stream.Restore(t.Context(), js, &s, bytes.NewReader(data))
	require.Error(t, err, "it is there")

	other := streamtest.NewEmptyClient(t).JetStream()
	require.NoError(t, stream.Restore(t.Context(), other, &s, bytes.NewReader(data)))
	restored, err := other.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	assert.EqualValues(t, 600, restored.CachedInfo().State.Msgs)
	assert.Equal(t, s.Incarnation, stream.Incarnation(restored.CachedInfo()), "places in it are places in the first")
	msg, err := restored.GetMsg(t.Context(), 250)
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprint(snapshotSubject, 249), msg.Subject)
	consumer, err := other.Consumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	assert.False(t, consumer.CachedInfo().Paused, "the pause of its backup does not go on")
	next, err := consumer.Next(jetstream.FetchMaxWait(20 * time.Second))
	require.NoError(t, err)
	meta, err := next.Metadata()
	require.NoError(t, err)
	assert.EqualValues(t, 101, meta.Sequence.Stream)
}

// TestRestoreOfSkipped has a consumer that is behind the beginning of its stream: the
// server moves it there when it pleases, also between a backup and its restore.
func TestRestoreOfSkipped(t *testing.T) {
	t.Parallel()
	js := filled(t, 600, 100)
	s, data := save(t, js)
	s.Consumers[0].AckFloor = 50
	other := streamtest.NewEmptyClient(t).JetStream()
	require.ErrorContains(t, stream.Restore(t.Context(), other, &s, bytes.NewReader(data)), "its consumers are at", "the control: 50 more are acknowledged than were")

	raw, err := js.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	require.NoError(t, raw.Purge(t.Context(), jetstream.WithPurgeSequence(101)))
	s, data = save(t, js)
	s.Consumers[0].AckFloor = 50
	other = streamtest.NewEmptyClient(t).JetStream()
	require.NoError(t, stream.Restore(t.Context(), other, &s, bytes.NewReader(data)))
}

func TestRestoreOfHalf(t *testing.T) {
	t.Parallel()
	js := filled(t, 600, 1)
	s, data := save(t, js)
	other := streamtest.NewEmptyClient(t).JetStream()
	err := stream.Restore(t.Context(), other, &s, bytes.NewReader(data[:len(data)/2]))
	require.ErrorContains(t, err, "restoring stream RAW")
	t.Log(err)
	other = streamtest.NewEmptyClient(t).JetStream()
	err = stream.Restore(t.Context(), other, &s, io.MultiReader(bytes.NewReader(data[:10]), brokenReader{}))
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestHold(t *testing.T) {
	t.Parallel()
	js := filled(t, 10, 2)
	next := func(wait time.Duration) error {
		consumer, err := js.Consumer(t.Context(), "RAW", "decoder")
		require.NoError(t, err)
		msg, err := consumer.Next(jetstream.FetchMaxWait(wait))
		if err == nil {
			err = msg.DoubleAck(t.Context())
		}
		return err
	}
	require.NoError(t, next(20*time.Second), "the control")
	hold, err := stream.NewHold(t.Context(), js, []string{"RAW"})
	require.NoError(t, err)
	require.Error(t, next(500*time.Millisecond))
	_, err = js.Publish(t.Context(), snapshotSubject+"x", nil)
	require.NoError(t, err, "publishers are not affected")
	require.NoError(t, hold.Check(t.Context()))

	_, err = js.ResumeConsumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	require.ErrorContains(t, hold.Check(t.Context()), "processed messages during the pause")

	require.NoError(t, hold.Release(t.Context()))
	require.NoError(t, hold.Release(t.Context()))
	require.NoError(t, next(20*time.Second))

	// Another hold ends, the consumer goes on, and is paused again.
	hold, err = stream.NewHold(t.Context(), js, []string{"RAW"})
	require.NoError(t, err)
	_, err = js.ResumeConsumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	require.NoError(t, next(20*time.Second))
	_, err = js.PauseConsumer(t.Context(), "RAW", "decoder", time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.ErrorContains(t, hold.Check(t.Context()), "processed messages during the pause")
	require.NoError(t, hold.Release(t.Context()))
	_, err = stream.NewHold(t.Context(), js, []string{"NONE"})
	require.Error(t, err)
}
