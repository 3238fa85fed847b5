package postgres

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeServer is a folder of programs that say they are of a version.
func fakeServer(t *testing.T, version string) string {
	t.Helper()
	folder := t.TempDir()
	script := []byte("#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n")
	for _, name := range []string{"initdb", "postgres"} {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), script, 0o700))
	}
	return folder
}

// Data made by one major version are of no use to another.
func TestFindTakesTheVersionOfTheData(t *testing.T) {
	older, newer, data := fakeServer(t, "98.3"), fakeServer(t, "99beta1"), t.TempDir()
	t.Setenv("PATH", newer+string(os.PathListSeparator)+os.Getenv("PATH"))
	found, err := find(t.Context(), data)
	require.NoError(t, err)
	assert.Equal(t, newer, found, "no data yet: PATH comes first")

	require.NoError(t, os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("98\n"), 0o600))
	_, err = find(t.Context(), data)
	require.ErrorContains(t, err, "PostgreSQL 98's, which is not installed")

	t.Setenv("PATH", older+string(os.PathListSeparator)+os.Getenv("PATH"))
	found, err = find(t.Context(), data)
	require.NoError(t, err)
	assert.Equal(t, older, found)
}

// The server would not start with a library that is not there.
func TestPreloadsWhatIsInstalled(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Preload = []string{"no_such_library", "plpgsql"}
	c := startCluster(t, cfg)
	assert.Equal(t, "plpgsql", show(t, connect(t, c, cfg), "shared_preload_libraries"))
}
