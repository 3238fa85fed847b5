package plain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPointInTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2026-11-24T10:00:00+01:00": "2026-11-24T09:00:00Z",
		"2026-11-24 10:00:00":       "2026-11-24T10:00:00Z",
		"2026-11-24":                "2026-11-24T00:00:00Z",
	} {
		var m PointInTime
		require.NoError(t, m.UnmarshalText([]byte(text)))
		assert.Equal(t, want, m.UTC().Format(time.RFC3339))
	}
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "0s": 0} {
		var m PointInTime
		require.NoError(t, m.UnmarshalText([]byte(text)))
		assert.WithinDuration(t, time.Now().Add(-want), m.Time, time.Minute, text)
	}
	for _, text := range []string{"", "yesterday", "-1h", "d", "2026-13-01"} {
		var m PointInTime
		require.ErrorContains(t, m.UnmarshalText([]byte(text)), "how long ago", text)
	}
}
