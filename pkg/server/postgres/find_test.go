package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
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
	t.Setenv(Variable, "")
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

	t.Setenv(Variable, newer)
	_, err = find(t.Context(), data)
	require.ErrorContains(t, err, "the data in "+data+" are PostgreSQL 98's: F2MESH_POSTGRES_BIN names a folder of another version, "+newer)
}

// A person who chooses a server gets that one or an error.
func TestFindTakesTheChosenFolder(t *testing.T) {
	onPath, chosen, data := fakeServer(t, "98.3"), fakeServer(t, "99.1"), t.TempDir()
	t.Setenv("PATH", onPath+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv(Variable, chosen)
	found, err := find(t.Context(), data)
	require.NoError(t, err)
	assert.Equal(t, chosen, found)

	t.Setenv(Variable, filepath.Dir(data))
	_, err = find(t.Context(), data)
	require.ErrorContains(t, err, "F2MESH_POSTGRES_BIN must name the folder of initdb and postgres")
	require.NotErrorIs(t, err, ErrNotInstalled, "a test must not be skipped for it")
}

// TestTimescalePreloaded shows which servers have TimescaleDB: tools/test-timescale runs it first.
func TestTimescalePreloaded(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Preload = []string{"timescaledb"}
	conn := connect(t, startCluster(t, cfg), cfg)
	var version string
	err := conn.QueryRow(t.Context(), "SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'").Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		assert.Empty(t, show(t, conn, "shared_preload_libraries"))
		accounttest.SkipWithoutTimescale(t)
	}
	require.NoError(t, err)
	assert.Equal(t, "timescaledb", show(t, conn, "shared_preload_libraries"))
	t.Logf("PostgreSQL %s, TimescaleDB %s", show(t, conn, "server_version"), version)
}

// The server would not start with a library that is not there.
func TestPreloadsWhatIsInstalled(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Preload = []string{"no_such_library", "plpgsql"}
	c := startCluster(t, cfg)
	assert.Equal(t, "plpgsql", show(t, connect(t, c, cfg), "shared_preload_libraries"))
}
