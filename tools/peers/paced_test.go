package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPercentile(t *testing.T) {
	t.Parallel()
	var values []float64
	for i := 100; i > 0; i-- {
		values = append(values, float64(i))
	}
	assert.InDelta(t, 50, percentile(values, 50), 0)
	assert.InDelta(t, 99, percentile(values, 99), 0)
	assert.InDelta(t, 100, percentile(values, 100), 0)
	assert.InDelta(t, 100, values[0], 0, "it leaves the values as they are")
	assert.InDelta(t, 2, percentile([]float64{3, 1, 2}, 50), 0)
	assert.InDelta(t, 3, percentile([]float64{3, 1, 2}, 67), 0)
	assert.InDelta(t, 7, percentile([]float64{7}, 1), 0)
	assert.Zero(t, percentile(nil, 50))
}
