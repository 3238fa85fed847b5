package mosquitto

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
)

// installed writes the files of a broker for two users, and answers how to write
// them again and how to read them.
func installed(t *testing.T) (f ConfigFiles, read func(string) string) {
	t.Helper()
	f = ConfigFiles{
		Dir: t.TempDir(), CertFile: filepath.Join(t.TempDir(), "pem"), CAs: []byte("first CAs"), CRLs: []byte("first lists"),
		Users: map[string]string{"bridge": "the bridge's", "operator": "the operator's"},
	}
	require.NoError(t, os.WriteFile(f.CertFile, []byte("certificate"), 0o600))
	f.KeyFile = f.CertFile
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

// What the registrar has put there since stays.
func TestFilesKeepLists(t *testing.T) {
	t.Parallel()
	dir := accounttest.TempDir(t)
	f, read := installed(t)
	assert.Equal(t, "first CAs", read(caFile))
	assert.Equal(t, "first lists", read(deviceCRLFile))
	f.Dir = filepath.Join(dir, "broker")
	require.NoError(t, WriteDeviceACL(f.Dir, []topic.MAC{"e4fd45f654be"}))
	for _, name := range []string{caFile, deviceCRLFile} {
		require.NoError(t, os.WriteFile(filepath.Join(f.Dir, name), []byte("the registrar's"), 0o600))
	}
	require.NoError(t, f.Write())
	for _, name := range []string{caFile, deviceCRLFile} {
		data, err := os.ReadFile(filepath.Join(f.Dir, name))
		require.NoError(t, err)
		assert.Equal(t, "the registrar's", string(data), name)
	}
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

// attended is a broker folder with an attendant, and what its broker was told.
func attended(t *testing.T) (folder string, a *Attendant, reloaded chan struct{}, stop func()) {
	t.Helper()
	f, _ := installed(t)
	run := filepath.Join(f.Dir, runFolder)
	require.NoError(t, os.Mkdir(run, 0o700))
	a, err := Attend(f.Dir, run, "127.0.0.1")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	reloaded = make(chan struct{}, 8)
	done := make(chan error, 1)
	go func() {
		done <- a.Follow(ctx, func() error { reloaded <- struct{}{}; return nil })
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, a.Close())
	})
	t.Cleanup(stop)
	return f.Dir, a, reloaded, stop
}

// Reload reaches a broker that another container runs, through the folder, as long
// as it runs.
func TestReloadOfAttendedBroker(t *testing.T) {
	t.Parallel()
	folder, _, reloaded, stop := attended(t)
	for range 3 {
		require.NoError(t, Reload(folder))
		<-reloaded
	}
	_, err := Attend(folder, filepath.Join(folder, runFolder), "127.0.0.1")
	require.ErrorContains(t, err, "another broker")
	stop()
	require.ErrorIs(t, Reload(folder), ErrNotRunning)
	assert.Empty(t, reloaded, "once each")

	require.NoError(t, os.WriteFile(filepath.Join(folder, reloadFile), []byte("before the start"), 0o600))
	a, err := Attend(folder, filepath.Join(folder, runFolder), "127.0.0.1")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*followInterval)
	defer cancel()
	require.NoError(t, a.Follow(ctx, func() error { assert.Fail(t, "it has read that at its start"); return nil }))
	require.NoError(t, a.Close())
	_, err = Attend(t.TempDir(), t.TempDir(), "127.0.0.1")
	require.Error(t, err, "init has not been there")
}

// A signal to an attended broker returns once it is told, not before; and tells one
// broker from the next.
func TestSignalOfAttendedBroker(t *testing.T) {
	t.Parallel()
	folder, a, reloaded, stop := attended(t)
	broker, runs := running(folder)
	require.True(t, runs)
	assert.Equal(t, "127.0.0.1", broker.host)
	require.NoError(t, broker.signal(t.Context(), folder))
	require.Len(t, reloaded, 1)
	stop()
	_, runs = running(folder)
	require.False(t, runs)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, broker.signal(ctx, folder), context.DeadlineExceeded, "nobody answers")

	next, err := Attend(folder, a.run, "127.0.0.1")
	require.NoError(t, err)
	require.ErrorContains(t, broker.signal(t.Context(), folder), "anew")
	now, runs := running(folder)
	require.True(t, runs)
	assert.NotEqual(t, broker.mark, now.mark)
	require.NoError(t, next.Close())
}

// A Gate keeps the lists of a broker that it sees through the folder alone.
func TestGateOfAttendedBroker(t *testing.T) {
	t.Parallel()
	folder, _, reloaded, stop := attended(t)
	text := "listener 1883\nlistener 8883\nlistener 0 /mosquitto/log/people.sock\n"
	require.NoError(t, os.WriteFile(filepath.Join(folder, confFile), []byte(text), 0o600))
	g := &Gate{owner: &account.Account{}, folder: folder}
	broker, _ := running(folder)
	services, err := g.services(broker)
	require.NoError(t, err)
	assert.Equal(t, "127.0.0.1:1883", services)
	stop()
	require.NoError(t, g.Kick(t.Context(), "registrar", "", []topic.MAC{"e4fd45f654be"}), "nobody is there to be ended")
	assert.Empty(t, reloaded)
}
