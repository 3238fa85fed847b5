package secret

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParse parses secret files. An error says nothing of the text.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"a password", `{"username":"u","password":"p"}`, `{"username":"u"}`, `{"password":1}`, "{", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text, "file", "")
		if err != nil {
			require.Contains(t, []string{"is empty", `begins with { and is not the JSON object {"username":"…","password":"…"}`}, err.Error())
			return
		}
		if !strings.HasPrefix(text, "{") {
			require.Equal(t, text, v.Reveal())
		}
		require.NotEmpty(t, v.Reveal())
	})
}
