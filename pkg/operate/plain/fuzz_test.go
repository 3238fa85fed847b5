package plain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func FuzzParseDuration(f *testing.F) {
	for _, text := range []string{"1d", "1.5d", "2w3d12h", "90s", ".d", "1e9w", "-1d", "99999999999999999999w"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			return
		}
		again, err := ParseDuration(d.String())
		require.NoError(t, err)
		require.Equal(t, d, again)
		if own, err := time.ParseDuration(text); err == nil {
			require.Equal(t, own, d)
		}
		var at PointInTime
		_ = at.UnmarshalText([]byte(text))
	})
}
