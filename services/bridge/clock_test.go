package bridge

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestReceiveClock: messages arrive at the same time, and the machine's clock steps back.
func TestReceiveClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c receiveClock
		first := c.now()
		assert.Equal(t, time.Now().Truncate(time.Microsecond).UnixMicro(), first.UnixMicro())
		assert.Equal(t, time.Microsecond, c.now().Sub(first), "the control: synctest's clock stands")
		c.last.Add((stepBack - time.Millisecond).Microseconds())
		assert.Equal(t, stepBack-time.Millisecond+2*time.Microsecond, c.now().Sub(first), "a small step is bridged")
		c.last.Store(first.Add(time.Hour).UnixMicro())
		assert.Equal(t, first, c.now(), "a large one is followed")
	})
}
