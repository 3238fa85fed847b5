package event_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// TestPlaceID: an id contains its place, and later places have greater ids.
func TestPlaceID(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "0000000000000001000000000000002a", event.PlaceID(1, 42).String())
	rapid.Check(t, func(t *rapid.T) {
		incarnation, sequence := rapid.Uint64().Draw(t, "incarnation"), rapid.Uint64().Draw(t, "sequence")
		id := event.PlaceID(incarnation, sequence)
		assert.Equal(t, incarnation, id.Incarnation())
		assert.Equal(t, sequence, id.Sequence())
		if later := rapid.Uint64().Draw(t, "later"); later > sequence {
			other := event.PlaceID(incarnation, later)
			assert.Negative(t, bytes.Compare(id[:], other[:]))
		}
	})
}

func TestDigest(t *testing.T) {
	t.Parallel()
	one := event.Digest("a", []byte("bc"))
	assert.Equal(t, one, event.Digest("a", []byte("bc")))
	assert.NotEqual(t, one, event.Digest("ab", []byte("c")), "place and body are kept apart")
}
