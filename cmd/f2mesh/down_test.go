package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDownRemovesVolumes(t *testing.T) {
	t.Parallel()
	st := state{dir: filepath.Join(t.TempDir(), "state")}
	var out bytes.Buffer
	require.NoError(t, removeState(st, &out, false))
	assert.Contains(t, out.String(), "nothing to remove")
	for _, name := range []string{"nats", "secrets"} {
		require.NoError(t, os.MkdirAll(st.path(name, "below"), 0o700))
	}
	require.ErrorContains(t, removeState(st, &out, false), "no state directory", "a folder that no mesh ever used")
	require.DirExists(t, st.path("nats"))
	lock, err := st.lock()
	require.NoError(t, err)
	elsewhere := t.TempDir()
	require.NoError(t, os.Symlink(elsewhere, st.path("mosquitto")))
	require.NoError(t, os.WriteFile(st.path("notes.txt"), nil, 0o600))

	require.ErrorIs(t, removeState(st, &out, false), errAlreadyRunning)
	require.NoError(t, lock.Close())
	out.Reset()
	require.NoError(t, removeState(st, &out, true))
	assert.Contains(t, out.String(), "would remove "+st.path("mosquitto")+" and "+elsewhere)
	assert.Contains(t, out.String(), "stays: "+st.path("notes.txt"))
	require.DirExists(t, st.path("nats", "below"), "a dry run")

	require.NoError(t, removeState(st, &out, false))
	require.DirExists(t, elsewhere, "a link that account.Place did not make")
	require.NoDirExists(t, st.path("nats"))
	require.FileExists(t, st.path("notes.txt"))
	require.NoError(t, os.Remove(st.path("notes.txt")))
	lock, err = st.lock()
	require.NoError(t, err)
	require.NoError(t, lock.Close())
	require.NoError(t, removeState(st, &out, false))
	require.NoDirExists(t, st.dir)
}
