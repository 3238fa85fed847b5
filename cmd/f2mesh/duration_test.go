package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"1d": day, "1.5d": 36 * time.Hour, ".5d": 12 * time.Hour, "2w": 14 * day, "1w2d3h4m": 9*day + 3*time.Hour + 4*time.Minute,
		"90s": 90 * time.Second, "0": 0, "-1d": -day, "1h30m": 90 * time.Minute,
	} {
		got, err := parseDuration(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "1", "d", "1 d", "1y", "one day", "1dd", "1e9d", "200000w"} {
		_, err := parseDuration(text)
		require.ErrorContains(t, err, "1d or 2w", text)
	}
}

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
