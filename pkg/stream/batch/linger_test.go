package batch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/f2mesh/f2mesh/pkg/stream/batch"
)

// TestLinger: a batch waits if more than a few items come meanwhile, at the rate of the last
// 100 ms.
func TestLinger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const wait = 20 * time.Millisecond
		l := batch.Linger{Max: wait, Few: 8}
		assert.Equal(t, wait, l.After(0), "the first batch")
		// at returns the wait after a second of batches with n items each, every 10 ms.
		at := func(n int) (wait time.Duration) {
			for range 100 {
				time.Sleep(10 * time.Millisecond)
				wait = l.After(n)
			}
			return wait
		}
		assert.Zero(t, at(1))
		assert.Zero(t, at(4), "8 items in 20 ms")
		assert.Equal(t, wait, at(5))
		assert.Zero(t, at(1))
		assert.Equal(t, wait, at(100))
		time.Sleep(time.Minute)
		assert.Zero(t, l.After(100), "100 items a minute")
	})
}
