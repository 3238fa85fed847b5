package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWhileStarting has run.json as the last mesh left it: neither its process
// nor its ports are the new mesh's.
func TestWhileStarting(t *testing.T) {
	t.Parallel()
	st := state{dir: t.TempDir()}
	require.NoError(t, st.save(running{PID: 1}))
	_, err := st.load()
	require.ErrorContains(t, err, "no mesh runs")

	lock, err := st.lock()
	require.NoError(t, err)
	defer func() { _ = lock.Close() }()
	_, err = st.holder()
	require.Error(t, err)
	require.NoError(t, hold(lock))
	pid, err := st.holder()
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), pid, "whom down stops")
	_, err = st.load()
	require.ErrorContains(t, err, "still starting")

	require.NoError(t, st.save(running{PID: os.Getpid()}))
	_, err = st.load()
	require.NoError(t, err)
	assert.True(t, st.locked())
	pid, err = st.holder()
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), pid, "a look does not change it")
}

func TestCommandNamesTheDirectory(t *testing.T) {
	usual, err := filepath.Abs(".f2mesh")
	require.NoError(t, err)
	for dir, want := range map[string]string{usual: "", "/tmp/by environment": "", "/tmp/by flag's": ` --state-dir '/tmp/by flag'\''s'`} {
		t.Setenv("F2MESH_STATE_DIR", "/tmp/by environment")
		assert.Equal(t, os.Args[0]+" down"+want, state{dir: dir}.command("down"))
	}
}
