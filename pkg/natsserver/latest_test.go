package natsserver

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// publishBatches publishes atomic batches of 1,000 readings of a few components.
func publishBatches(t *testing.T, js jetstream.JetStream, batches int) {
	t.Helper()
	const size = 1000
	for b := range batches {
		batch, err := jetstreamext.NewBatchPublisher(js)
		require.NoError(t, err)
		for i := range size {
			n := b*size + i
			subject := fmt.Sprintf("f2.decoded.%012x.sensor-mode.1.sensor-1", n%100)
			if i < size-1 {
				require.NoError(t, batch.Add(subject, fmt.Append(nil, n)))
				continue
			}
			_, err := batch.Commit(t.Context(), subject, fmt.Append(nil, n))
			require.NoError(t, err)
		}
	}
}

// LATEST is filled message by message. Were each one synced to disk, a few
// hundred would arrive a second and LATEST would fall behind for good.
func TestLatestKeepsUp(t *testing.T) {
	t.Parallel()
	const batches = 10
	cfg := testConfig(t)
	s := startServer(t, cfg)
	js := declare(t, s, cfg)
	publishBatches(t, js, batches)
	published := time.Now()
	require.Eventually(t, func() bool {
		stream, err := js.Stream(t.Context(), "KV_LATEST")
		require.NoError(t, err)
		return stream.CachedInfo().State.LastSeq == batches*1000
	}, 2*time.Second, time.Millisecond)
	t.Logf("%d messages later LATEST is %s behind", batches*1000, time.Since(published))

	bucket, err := js.KeyValue(t.Context(), "LATEST")
	require.NoError(t, err)
	keys, err := bucket.Keys(t.Context())
	require.NoError(t, err)
	assert.Len(t, keys, 100)
	entry, err := bucket.Get(t.Context(), "000000000007.sensor-mode.1.sensor-1")
	require.NoError(t, err)
	assert.Equal(t, "9907", string(entry.Value()))
}
