package account_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
)

// other is an account that every Linux has.
func other(t *testing.T) *account.Account {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may start programs as another account")
	}
	a, err := account.Lookup("nobody")
	require.NoError(t, err)
	return a
}

// reads reports whether the account can read the file itself.
func reads(t *testing.T, a *account.Account, path string) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cat", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.Credential()}
	return cmd.Run() == nil
}

func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	self := &account.Account{}
	assert.False(t, self.Other())
	assert.Nil(t, self.Credential())
	dir := filepath.Join(t.TempDir(), "deep", "server")
	placed, err := account.Place(dir, self)
	require.NoError(t, err)
	assert.Equal(t, dir, placed)
	info, err := os.Lstat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|0o700, info.Mode())
	require.NoError(t, self.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600))
}

func TestUnknownAccount(t *testing.T) {
	t.Parallel()
	_, err := account.Lookup("no-such-account")
	if os.Geteuid() == 0 {
		require.ErrorContains(t, err, "no-such-account")
	} else {
		require.NoError(t, err)
	}
}

func TestPlaceWhereTheAccountReaches(t *testing.T) {
	t.Parallel()
	a := other(t)
	dir := filepath.Join(accounttest.TempDir(t), "server")
	placed, err := account.Place(dir, a)
	require.NoError(t, err)
	assert.Equal(t, dir, placed)
	require.NoError(t, a.WriteFile(filepath.Join(placed, "file"), []byte("x"), 0o600))
	assert.True(t, reads(t, a, filepath.Join(dir, "file")))
	require.NoError(t, account.Remove(dir))
	assert.NoDirExists(t, dir)
}

func TestPlaceWhereTheAccountDoesNotReach(t *testing.T) {
	t.Parallel()
	a := other(t)
	above := t.TempDir() // mode 700 above it
	dir := filepath.Join(above, "server")
	t.Cleanup(func() { assert.NoError(t, account.Remove(dir)) })
	placed, err := account.Place(dir, a)
	require.NoError(t, err)
	assert.NotEqual(t, dir, placed)
	again, err := account.Place(dir, a)
	require.NoError(t, err)
	assert.Equal(t, placed, again)

	require.NoError(t, a.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	assert.True(t, reads(t, a, filepath.Join(placed, "file")))
	assert.False(t, reads(t, a, filepath.Join(dir, "file")), "the way through the closed folder stays closed")
	info, err := os.Stat(placed)
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|0o700, info.Mode())

	require.NoError(t, account.Remove(dir))
	assert.NoDirExists(t, placed)
	require.NoError(t, account.Remove(dir), "removing again")
}

// A server that was broken into cannot have root read or write for it by putting
// links in its folder.
func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	a := other(t)
	ours := filepath.Join(t.TempDir(), "ours")
	require.NoError(t, os.WriteFile(ours, []byte("root's alone"), 0o600))
	dir, err := account.Place(filepath.Join(accounttest.TempDir(t), "server"), a)
	require.NoError(t, err)
	link, plain := filepath.Join(dir, "link"), filepath.Join(dir, "plain")
	require.NoError(t, os.Symlink(ours, link))
	require.NoError(t, os.WriteFile(plain, []byte("x"), 0o600))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, root.Close()) })

	_, err = account.ReadFile(link)
	require.Error(t, err)
	require.Error(t, a.WriteNew(root, "link", []byte("theirs"), 0o644))
	require.NoError(t, a.WriteFile(link, []byte("theirs"), 0o644), "it takes the link's place")
	text, err := os.ReadFile(ours)
	require.NoError(t, err)
	assert.Equal(t, "root's alone", string(text))
	info, err := os.Stat(ours)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	assert.EqualValues(t, 0, info.Sys().(*syscall.Stat_t).Uid)

	text, err = account.ReadFile(plain)
	require.NoError(t, err, "the control")
	assert.Equal(t, "x", string(text))
	require.NoError(t, a.WriteNew(root, "new", []byte("y"), 0o600), "the control")
	assert.True(t, reads(t, a, filepath.Join(dir, "new")))
}

func TestPlaceDoesNotReplaceData(t *testing.T) {
	t.Parallel()
	a := other(t)
	dir := filepath.Join(t.TempDir(), "server")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	file := filepath.Join(dir, "data")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	_, err := account.Place(dir, a)
	require.ErrorContains(t, err, "in the way")
	assert.FileExists(t, file)
}
