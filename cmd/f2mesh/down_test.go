package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
)

func TestDownRemovesVolumes(t *testing.T) {
	t.Parallel()
	st := mesh.State{Dir: filepath.Join(t.TempDir(), "state")}
	var out bytes.Buffer
	require.NoError(t, local.Remove(st, &out, false))
	assert.Contains(t, out.String(), "nothing to remove")
	for _, name := range []string{"nats", "secrets"} {
		require.NoError(t, os.MkdirAll(st.Path(name, "below"), 0o700))
	}
	require.ErrorContains(t, local.Remove(st, &out, false), "no state directory", "a folder that no mesh ever used")
	require.DirExists(t, st.Path("nats"))
	lock, err := st.Lock()
	require.NoError(t, err)
	elsewhere := t.TempDir()
	require.NoError(t, os.Symlink(elsewhere, st.Path("mosquitto")))
	require.NoError(t, os.WriteFile(st.Path("notes.txt"), nil, 0o600))

	require.ErrorIs(t, local.Remove(st, &out, false), mesh.ErrAlreadyRunning)
	require.NoError(t, lock.Close())
	out.Reset()
	require.NoError(t, local.Remove(st, &out, true))
	assert.Contains(t, out.String(), "would remove "+st.Path("mosquitto")+" and "+elsewhere)
	assert.Contains(t, out.String(), "stays: "+st.Path("notes.txt"))
	require.DirExists(t, st.Path("nats", "below"), "a dry run")

	require.NoError(t, local.Remove(st, &out, false))
	require.DirExists(t, elsewhere, "a link that account.Place did not make")
	require.NoDirExists(t, st.Path("nats"))
	require.FileExists(t, st.Path("notes.txt"))
	require.NoError(t, os.Remove(st.Path("notes.txt")))
	lock, err = st.Lock()
	require.NoError(t, err)
	require.NoError(t, lock.Close())
	require.NoError(t, local.Remove(st, &out, false))
	require.NoDirExists(t, st.Dir)
}
