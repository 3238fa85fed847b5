package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDurationFlags has the flags of each command take days.
func TestDurationFlags(t *testing.T) {
	t.Parallel()
	var cli commands
	_, err := newParser(t.Context(), &cli).Parse([]string{"audit", "--since", "1d", "--until=1w"})
	require.NoError(t, err)
	assert.Equal(t, 24*time.Hour, cli.Audit.Since)
	assert.Equal(t, 7*24*time.Hour, cli.Audit.Until)
	_, err = newParser(t.Context(), &cli).Parse([]string{"simulate", "--interval=1d"})
	require.NoError(t, err)
	assert.Equal(t, 24*time.Hour, *cli.Simulate.Interval)
	_, err = newParser(t.Context(), &cli).Parse([]string{"audit", "--since", "1y"})
	require.ErrorContains(t, err, "1d or 2w")
}
