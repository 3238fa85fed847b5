package stream_test

import (
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// TestNamesAreThoseOfTheFiles compares the constants with the definitions in nats/.
func TestNamesAreThoseOfTheFiles(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(natsfiles.Files, "stream_*.json")
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		text, err := fs.ReadFile(natsfiles.Files, file)
		require.NoError(t, err)
		var definition struct{ Name string }
		require.NoError(t, json.Unmarshal(text, &definition))
		names = append(names, definition.Name)
	}
	require.ElementsMatch(t, []string{
		stream.Raw, stream.Decoded, stream.DeadLetter, stream.Parked, stream.Latest, stream.Commands, stream.Result, stream.Audit, stream.Alarm,
	}, names)
}
