package decoder

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/stream"
)

func TestProgress(t *testing.T) {
	t.Parallel()
	start := time.Now()
	position := func(floor, pending uint64) *jetstream.ConsumerInfo {
		return &jetstream.ConsumerInfo{AckFloor: jetstream.SequenceInfo{Stream: floor}, NumPending: pending}
	}
	var p progress
	require.NoError(t, p.look(start, position(5, 10)))
	require.NoError(t, p.look(start.Add(stalledAfter), position(5, 10)), "not yet")
	require.ErrorContains(t, p.look(start.Add(stalledAfter+time.Second), position(5, 12)), "12 messages wait on RAW, and none was acknowledged for 31s")
	require.NoError(t, p.look(start.Add(time.Minute), position(6, 12)), "it goes on")
	require.NoError(t, p.look(start.Add(time.Hour), position(7, 12)))
	require.NoError(t, p.look(start.Add(2*time.Hour), position(12, 0)))
	require.NoError(t, p.look(start.Add(3*time.Hour), position(12, 0)), "nothing is waiting")
	require.NoError(t, p.look(start.Add(3*time.Hour+time.Second), position(12, 1)), "what has just come is not late")

	began := time.Now()
	require.NoError(t, p.storing(stream.Decoded, func() error {
		require.NoError(t, p.look(began.Add(time.Second), position(12, 0)))
		assert.ErrorContains(t, p.look(began.Add(time.Minute), position(12, 0)), "storing on stream DECODED has taken")
		return nil
	}))
	require.NoError(t, p.look(began.Add(time.Minute), position(12, 0)), "now it has")
}
