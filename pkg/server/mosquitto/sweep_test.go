package mosquitto

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// holdVariable has the test's program hold a trial's folder until it is killed.
const holdVariable = "F2MESH_TEST_HOLD_TRIAL"

// holdUntilKilled is what TestMain does in that process.
func holdUntilKilled(folder string) {
	dir, held, err := holdTrial(folder)
	if err == nil {
		_, _ = os.Stdout.WriteString(filepath.Base(dir) + "\n")
		_, _ = os.Stdin.Read(make([]byte, 1))
		_ = held.Close()
	}
	os.Exit(1)
}

func TestSweepsWhatAKillLeft(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), holdVariable+"="+folder)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer func() { _ = stdin.Close() }()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	name, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	dir := filepath.Join(folder, name[:len(name)-1])

	own, held, err := holdTrial(folder)
	require.NoError(t, err)
	require.NoError(t, sweepTrials(folder))
	assert.DirExists(t, dir, "the control: a running process holds it")
	assert.DirExists(t, own)

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait(), "it was killed")
	require.NoError(t, sweepTrials(folder))
	assert.NoDirExists(t, dir)
	assert.DirExists(t, own, "ours is in use")
	require.NoError(t, held.Close())
}

// TestStartSweeps has the next start, and the next trial, take away what is left.
func TestStartSweeps(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	leave := func() string {
		t.Helper()
		dir := filepath.Join(b.cfg.Dir, ".trial-123")
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, aclFile), nil, 0o600))
		return dir
	}
	dir := leave()
	_, err := b.gate.Prepare(t.Context(), b.lists([]topic.MAC{device, neighbor}), Sample{})
	require.NoError(t, err)
	assert.NoDirExists(t, dir)

	b.admit(b.lists([]topic.MAC{device}), Sample{})
	dir = leave()
	b.start()
	assert.NoDirExists(t, dir)
}
