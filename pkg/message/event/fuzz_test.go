package event

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseID(f *testing.F) {
	for _, text := range []string{PlaceID(1796034243000000000, 7).String(), "", "0", "ZZ"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err != nil {
			return
		}
		again, err := ParseID(id.String())
		require.NoError(t, err)
		require.Equal(t, id, again)
		require.Equal(t, id, PlaceID(id.Incarnation(), id.Sequence()))
	})
}
