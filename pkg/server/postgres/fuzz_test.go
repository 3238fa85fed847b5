package postgres

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParseLine parses lines of PostgreSQL's log. What an error quotes is left out.
func FuzzParseLine(f *testing.F) {
	for _, text := range []string{`invalid input syntax for type integer: "secret"`, `"secret`, `""secret"" "`, "", `x" "y`} {
		f.Add("ERROR:  " + text)
	}
	f.Add("LOG:  checkpoint starting: time")
	f.Add("\tdetail")
	f.Fuzz(func(t *testing.T, line string) {
		parsed := parseLine(line)
		if text, isError := strings.CutPrefix(line, "ERROR:  "); isError && strings.Contains(text, `"`) {
			require.Contains(t, parsed.Text, `"..."`)
			for i, part := range strings.Split(text, `"`) {
				if i%2 == 1 && len(part) > 8 && strings.Count(text, part) == 1 { // a quoted part, and nothing else like it
					require.NotContains(t, parsed.Text, part)
				}
			}
		}
	})
}
