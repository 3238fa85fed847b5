package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
)

// TestWhileStarting has run.json as the last mesh left it: neither its process
// nor its ports are the new mesh's.
func TestWhileStarting(t *testing.T) {
	t.Parallel()
	st := mesh.State{Dir: t.TempDir()}
	require.NoError(t, st.Save(mesh.Description{PID: 1}))
	_, err := st.Load()
	require.ErrorContains(t, err, "no mesh runs")

	lock, err := st.Lock()
	require.NoError(t, err)
	defer func() { _ = lock.Close() }()
	_, err = st.Holder()
	require.Error(t, err)
	require.NoError(t, mesh.NoteHolder(lock))
	pid, err := st.Holder()
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), pid, "whom down stops")
	_, err = st.Load()
	require.ErrorContains(t, err, "still starting")

	require.NoError(t, st.Save(mesh.Description{PID: os.Getpid()}))
	_, err = st.Load()
	require.NoError(t, err)
	assert.True(t, st.Locked())
	pid, err = st.Holder()
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), pid, "a look does not change it")
}

func TestCommandNamesTheDirectory(t *testing.T) {
	usual, err := filepath.Abs(".f2mesh")
	require.NoError(t, err)
	for dir, want := range map[string]string{usual: "", "/tmp/by environment": "", "/tmp/by flag's": ` --state-dir '/tmp/by flag'\''s'`} {
		t.Setenv("F2MESH_STATE_DIR", "/tmp/by environment")
		assert.Equal(t, os.Args[0]+" down"+want, mesh.State{Dir: dir}.Command("down"))
	}
}
