package plain

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
		got, err := ParseDuration(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "1", "d", "1 d", "1y", "one day", "1dd", "1e9d", "200000w"} {
		_, err := ParseDuration(text)
		require.ErrorContains(t, err, "1d or 2w", text)
	}
}
