package compose

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// classic is the format that Grafana 12 provisions from files.
type classic = dashboard.Dashboard //nolint:staticcheck // its successor is for Grafana's Kubernetes-like API

// TestDashboards holds the dashboards against Grafana's own schema: no field that
// Grafana does not know, none of a wrong type, no two panels of one number. That
// their queries are answered is tested on a running mesh, in cmd/f2mesh.
func TestDashboards(t *testing.T) {
	plugins.RegisterDefaultPlugins() // the kinds of panels and queries
	files, err := filepath.Glob(filepath.Join(root(t), "grafana", "dashboards", "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Empty(t, problems(new(classic).UnmarshalJSONStrict(text)), file)
		var board classic
		require.NoError(t, json.Unmarshal(text, &board), file)
		require.Empty(t, problems(board.Validate()), file)
		seen := map[uint32]bool{}
		for _, p := range board.Panels {
			require.NotNil(t, p.Panel, file)
			require.NotNil(t, p.Panel.Id, file)
			assert.False(t, seen[*p.Panel.Id], "%s: two panels are number %d", file, *p.Panel.Id)
			seen[*p.Panel.Id] = true
		}
		misspelt := strings.Replace(string(text), `"gridPos"`, `"gridpos"`, 1)
		require.NotEmpty(t, problems(new(classic).UnmarshalJSONStrict([]byte(misspelt))), "the control")
	}
}

// problems are what the SDK found: it answers an error that is not nil also where
// there are none.
func problems(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
