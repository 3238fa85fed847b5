package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

func TestDeadFilter(t *testing.T) {
	t.Parallel()
	since := &plain.PointInTime{Time: time.Now()}
	got, err := (&deadFilter{Stage: "decoder", Reason: "bad_json", MAC: "E4-FD-45-F6-54-BE", Since: since}).filter()
	require.NoError(t, err)
	assert.Equal(t, deadletter.Filter{Stage: "decoder", Reason: "bad_json", MAC: "e4fd45f654be", Since: since.Time}, got)
	got, err = (&deadFilter{MAC: "unknown"}).filter()
	require.NoError(t, err)
	assert.True(t, got.Unknown)
	_, err = (&deadFilter{MAC: "here"}).filter()
	require.ErrorContains(t, err, "not a MAC address")
	_, err = (&deadFilter{Reason: "*.>"}).filter()
	require.ErrorContains(t, err, "is not a reason")
}
