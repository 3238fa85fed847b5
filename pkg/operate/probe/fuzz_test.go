package probe

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParseStats parses what anybody answers who claims to be a service.
func FuzzParseStats(f *testing.F) {
	for _, text := range []string{
		`{"name":"f2mesh-bridge","id":"x","endpoints":[{"name":"stats","data":{"f2mesh_bridge_messages_received_total":1}}]}`,
		`{"name":"f2mesh-","endpoints":[{}]}`, `{"name":"other","endpoints":[{"data":[]}]}`, `{`, ``,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if o, ok := ParseStats(data); ok {
			require.NotEmpty(t, o.Name)
		}
	})
}
