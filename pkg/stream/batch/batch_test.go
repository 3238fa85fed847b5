package batch_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/f2mesh/f2mesh/pkg/stream/batch"
)

// filled is a channel that holds n items and then blocks.
func filled(n int) chan int {
	in := make(chan int, n+1)
	for i := range n {
		in <- i
	}
	return in
}

func TestGatherStopsAtLimit(t *testing.T) {
	t.Parallel()
	in := filled(5)
	assert.Equal(t, []int{0, 1, 2}, batch.Gather(t.Context(), in, nil, 3, time.Hour))
	assert.Equal(t, []int{3}, batch.Gather(t.Context(), in, nil, 1, time.Hour))
	assert.Equal(t, []int{-1, 4}, batch.Gather(t.Context(), in, []int{-1}, 2, time.Hour), "what the buffer holds counts")
}

func TestGatherLingers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := make(chan int)
		go func() {
			for i := range 3 {
				time.Sleep(time.Minute) // the first may be long in coming
				in <- i
				time.Sleep(10 * time.Millisecond)
				in <- -i
			}
		}()
		start := time.Now()
		assert.Equal(t, []int{0, 0}, batch.Gather(t.Context(), in, nil, 100, 50*time.Millisecond))
		assert.Equal(t, time.Minute+50*time.Millisecond, time.Since(start), "counted from the first item")
		assert.Equal(t, []int{1}, batch.Gather(t.Context(), in, nil, 100, 5*time.Millisecond), "the second came too late")
		assert.Equal(t, []int{-1}, batch.Gather(t.Context(), in, nil, 100, 5*time.Millisecond), "and is not lost")
		assert.Equal(t, []int{2, -2}, batch.Gather(t.Context(), in, nil, 2, time.Hour), "a full batch does not linger")
	})
}

func TestGatherWithoutLinger(t *testing.T) {
	t.Parallel()
	assert.Len(t, batch.Gather(t.Context(), filled(50), nil, 100, 0), 50, "what is there already is taken")
}

func TestGatherEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		closed := filled(2)
		close(closed)
		assert.Equal(t, []int{0, 1}, batch.Gather(t.Context(), closed, nil, 100, time.Hour))
		assert.Empty(t, batch.Gather(t.Context(), closed, nil, 100, time.Hour))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, []int{0, 1, 2}, batch.Gather(ctx, filled(3), nil, 100, time.Hour), "a stop does not wait for linger")
		assert.Empty(t, batch.Gather(ctx, make(chan int), nil, 100, time.Hour))
	})
}

// TestGatherKeepsAll sends through many batches: nothing is lost, doubled or
// out of order.
func TestGatherKeepsAll(t *testing.T) {
	t.Parallel()
	const n = 10000
	in := make(chan int)
	go func() {
		defer close(in)
		for i := range n {
			in <- i
		}
	}()
	var got []int
	for buf := make([]int, 0, 64); ; {
		buf = batch.Gather(t.Context(), in, buf[:0], 64, 10*time.Microsecond)
		if len(buf) == 0 {
			break
		}
		assert.LessOrEqual(t, len(buf), 64)
		got = append(got, buf...)
	}
	assert.Len(t, got, n)
	for i, v := range got {
		assert.Equal(t, i, v)
	}
}

func TestGatherBytes(t *testing.T) {
	t.Parallel()
	in := make(chan int, 10)
	for _, size := range []int{3, 4, 5, 20, 1, 1} {
		in <- size
	}
	close(in)
	size := func(n int) int { return n }
	gather := func(limit, maxBytes int) []int {
		return batch.GatherBytes(t.Context(), in, nil, limit, time.Hour, size, maxBytes)
	}
	assert.Equal(t, []int{3, 4}, gather(10, 7), "it ends when the bound is reached")
	assert.Equal(t, []int{5, 20}, gather(10, 7), "or passed, by one item at most")
	assert.Equal(t, []int{1}, gather(1, 7), "the control: the count bounds, too")
	assert.Equal(t, []int{1}, gather(10, 7))
	assert.Empty(t, gather(10, 7))
}
