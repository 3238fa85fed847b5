package natsserver

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// LATEST takes the decoder's batches, keeps the last of each component, and reads as
// a bucket. DECODED has nothing to do with it: what is published there alone is no
// state.
func TestLatestTakesBatches(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	operator := declare(t, s, cfg)
	js, err := jetstream.New(connect(t, s, cfg, Decoder))
	require.NoError(t, err)
	const components, rounds = 100, 3
	_, err = js.Publish(t.Context(), "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1", []byte("no state"))
	require.NoError(t, err)
	for round := range rounds {
		var messages []*nats.Msg
		for i := range components {
			m := nats.NewMsg(fmt.Sprintf("$KV.LATEST.%012x.sensor-mode.1.sensor-1", i))
			m.Data = fmt.Append(nil, round)
			messages = append(messages, m)
		}
		_, err := jetstreamext.PublishMsgBatch(t.Context(), js, messages)
		require.NoError(t, err)
	}
	bucket, err := operator.KeyValue(t.Context(), "LATEST")
	require.NoError(t, err)
	keys, err := bucket.Keys(t.Context())
	require.NoError(t, err)
	assert.Len(t, keys, components)
	entry, err := bucket.Get(t.Context(), "000000000007.sensor-mode.1.sensor-1")
	require.NoError(t, err)
	assert.Equal(t, "2", string(entry.Value()))
}
