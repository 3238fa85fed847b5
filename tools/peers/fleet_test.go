package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLags(t *testing.T) {
	t.Parallel()
	var looks []moment
	for second := range uint64(rateOver + 3) {
		looks = append(looks, moment{stored: 1000 * second, waiting: 500})
	}
	looks[rateOver+1].waiting = 3000
	assert.Equal(t, []float64{0.5, 3, 0.5}, lagsOf(looks))
	assert.Empty(t, lagsOf(looks[:rateOver]), "too few looks for a rate")
	assert.Empty(t, lagsOf(make([]moment, rateOver+1)), "nothing came")
}
