package plain

import (
	"encoding/json"
	"os"
)

// PrintJSON prints v on standard output as indented JSON, which quotes what a terminal must not get.
func PrintJSON(v any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(v)
}
