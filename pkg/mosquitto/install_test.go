package mosquitto

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// installed writes the files of a broker for two users, and answers how to write
// them again and how to read them.
func installed(t *testing.T) (f Files, read func(string) string) {
	t.Helper()
	f = Files{
		Dir: t.TempDir(), CAFile: filepath.Join(t.TempDir(), "ca"),
		Users: map[string]string{"bridge": "the bridge's", "operator": "the operator's"},
	}
	require.NoError(t, os.WriteFile(f.CAFile, []byte("certificate"), 0o600))
	f.CertFile, f.KeyFile = f.CAFile, f.CAFile
	require.NoError(t, f.Write())
	return f, func(name string) string {
		data, err := os.ReadFile(filepath.Join(f.Dir, name))
		require.NoError(t, err)
		return string(data)
	}
}

// A password that stays the same must not end its user's sessions, one that has
// changed must be put in force.
func TestFilesKeepPasswords(t *testing.T) {
	t.Parallel()
	f, read := installed(t)
	first := read(passwordsFile)
	require.NoError(t, f.Write())
	assert.Equal(t, first, read(passwordsFile))

	f.Users["operator"] = "another"
	f.KeepUsers = true
	require.NoError(t, f.Write())
	assert.Equal(t, first, read(passwordsFile), "somebody else's business")

	f.KeepUsers = false
	require.NoError(t, f.Write())
	second := read(passwordsFile)
	bridge, operator, _ := strings.Cut(first, "\n")
	assert.Contains(t, second, bridge)
	assert.NotContains(t, second, strings.TrimSpace(operator))

	delete(f.Users, "operator")
	require.NoError(t, f.Write())
	assert.NotContains(t, read(passwordsFile), "operator:")
}

func TestFilesKeepControllers(t *testing.T) {
	t.Parallel()
	dir := accounttest.TempDir(t)
	f, _ := installed(t)
	f.Dir = filepath.Join(dir, "broker")
	require.NoError(t, WriteDeviceACL(f.Dir, []topic.MAC{"e4fd45f654be"}))
	require.NoError(t, f.Write())
	rights, err := os.ReadFile(filepath.Join(f.Dir, aclFile))
	require.NoError(t, err)
	assert.Contains(t, string(rights), "user e4-fd-45-f6-54-be\n")
	assert.Contains(t, string(rights), "user bridge\n")
}

// What mosquitto_passwd writes is read as the broker reads it.
func TestIsHashOf(t *testing.T) {
	t.Parallel()
	hash, err := hashPassword("right")
	require.NoError(t, err)
	assert.True(t, isHashOf(hash, "right"))
	for _, wrong := range []string{"", "wrong", "right "} {
		assert.False(t, isHashOf(hash, wrong), wrong)
	}
	for _, wrong := range []string{"", "$7$1000$", "$6$1$c2FsdA==$a2V5", "$7$x$c2FsdA==$a2V5", "$7$0$c2FsdA==$a2V5", "$7$1$%$a2V5", "$7$1$c2FsdA==$%", "$7$999999999$c2FsdA==$a2V5"} {
		assert.False(t, isHashOf(wrong, "right"), wrong)
	}
	program, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		accounttest.SkipMissing(t, err)
	}
	file := filepath.Join(t.TempDir(), "passwords")
	out, err := exec.CommandContext(t.Context(), program, "-b", "-c", file, "bridge", "right").CombinedOutput()
	require.NoError(t, err, string(out))
	line, err := os.ReadFile(file)
	require.NoError(t, err)
	_, hash, _ = strings.Cut(strings.TrimSpace(string(line)), ":")
	assert.True(t, isHashOf(hash, "right"))
	assert.False(t, isHashOf(hash, "wrong"))
}

// Reload reaches a broker that another container runs, through the folder.
func TestFollow(t *testing.T) {
	t.Parallel()
	f, _ := installed(t)
	ctx, cancel := context.WithCancel(t.Context())
	reloaded, done := make(chan struct{}, 8), make(chan error)
	go func() {
		done <- Follow(ctx, f.Dir, func() error { reloaded <- struct{}{}; return nil })
	}()
	awaitReload := func() {
		t.Helper()
		for deadline := time.After(30 * time.Second); ; {
			require.NoError(t, Reload(f.Dir)) // Follow may not have begun yet
			select {
			case <-reloaded:
				return
			case <-deadline:
				require.FailNow(t, "not reloaded")
			case <-time.After(3 * followInterval):
			}
		}
	}
	awaitReload()
	require.NoError(t, f.Write(), "writing the files alone reloads nothing")
	for len(reloaded) > 0 {
		<-reloaded
	}
	time.Sleep(3 * followInterval)
	assert.Empty(t, reloaded)
	awaitReload()
	cancel()
	require.NoError(t, <-done)

	require.ErrorIs(t, Reload(t.TempDir()), ErrNotRunning, "nobody follows this folder")
	require.Error(t, Follow(t.Context(), t.TempDir(), nil))
}
