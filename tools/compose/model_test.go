package compose

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

// root is the clone's folder.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	require.NoError(t, err)
	return dir
}

// variant is one way to call docker compose.
type variant struct {
	files    []string // besides compose.yaml
	profiles []string
	settings []string // NAME=value, as in .env
}

// everything is all services; a test of what holds everywhere starts from it.
var everything = variant{profiles: []string{"*"}}

// load resolves the model as docker compose does, without the environment and the
// .env of whoever runs the test.
func load(t *testing.T, v variant) *types.Project {
	t.Helper()
	files := []string{filepath.Join(root(t), "compose.yaml")}
	for _, f := range v.files {
		files = append(files, filepath.Join(root(t), f))
	}
	options, err := cli.NewProjectOptions(files, cli.WithWorkingDirectory(root(t)), cli.WithProfiles(v.profiles), cli.WithEnv(v.settings))
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	return project
}

// overrides lists the files compose.<name>.yaml.
func overrides(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root(t), "compose.*.yaml"))
	require.NoError(t, err)
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

// names are the services, sorted.
func names(project *types.Project) []string { return slices.Sorted(maps.Keys(project.Services)) }

// change gives one service of a fresh model to do, and answers the model.
func change(t *testing.T, service string, do func(*types.ServiceConfig)) *types.Project {
	t.Helper()
	project := load(t, everything)
	s, ok := project.Services[service]
	require.True(t, ok, service)
	do(&s)
	project.Services[service] = s
	return project
}

// readFile reads a file of the clone.
func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root(t), name))
	require.NoError(t, err)
	return string(data)
}
