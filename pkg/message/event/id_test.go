package event_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

func TestIDText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := event.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		got, err := event.ParseID(id.String())
		require.NoError(t, err)
		require.Equal(t, id, got)
		marshaled, err := json.Marshal(id)
		require.NoError(t, err)
		require.Equal(t, `"`+id.String()+`"`, string(marshaled))
	})
	for _, s := range []string{"", "00", "0102fe0000000000000000000000000", "0102fe00000000000000000000000000 ", "0102fe0000000000000000000000000g", "0102fe00-0000-0000-0000-00000000"} {
		_, err := event.ParseID(s)
		assert.Error(t, err, s)
	}
}
