package credential

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

func TestAll(t *testing.T) {
	t.Parallel()
	secrets, users := map[string]bool{}, map[string]bool{}
	for _, c := range All() {
		assert.False(t, secrets[c.Name], c.Name)
		secrets[c.Name] = true
		for _, user := range []string{c.User, c.Other(c.User)} {
			key := string(c.Kind) + " " + user
			assert.False(t, users[key], key)
			users[key] = true
			assert.True(t, c.Has(user))
		}
		assert.Equal(t, c.User, c.Other(c.Other(c.User)))
		assert.False(t, c.Has("stranger"))
		found, ok := Find(c.Name)
		assert.True(t, ok)
		assert.Equal(t, c, found)
	}
	second, ok := Find(SecondSuperuser().Name)
	assert.True(t, ok)
	assert.Equal(t, SecondSuperuser(), second)
	_, ok = Find("stranger")
	assert.False(t, ok)
	assert.Len(t, append(append(Of(NATS), Of(MQTT)...), Of(Postgres)...), len(All()))
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		password := Generate()
		random, err := base64.StdEncoding.DecodeString(password)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, len(random), 24)
		assert.False(t, seen[password])
		seen[password] = true
		assert.LessOrEqual(t, len(password), 72, "bcrypt takes no more")
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "secrets")
	files := Folder{Dir: dir}
	_, err := files.Lookup(t.Context(), "a_password")
	require.ErrorIs(t, err, secret.ErrNotFound)
	require.NoError(t, files.Make("a_password"))
	v, err := files.Lookup(t.Context(), "a_password")
	require.NoError(t, err)
	first := v.Reveal()
	assert.Equal(t, "fallback", v.Username("fallback"))

	require.NoError(t, files.Put("a_password", "a_b", `quote " and \`))
	v, err = files.Lookup(t.Context(), "a_password")
	require.NoError(t, err)
	assert.Equal(t, "a_b", v.Username("a"))
	assert.Equal(t, `quote " and \`, v.Reveal())
	require.NoError(t, files.Make("a_password"))
	v, err = files.Lookup(t.Context(), "a_password")
	require.NoError(t, err)
	assert.Equal(t, "a", v.Username("a"))
	assert.NotEqual(t, first, v.Reveal())

	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "a_password"): 0o600} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode().Perm(), path)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing else is left there")

	require.NoError(t, os.Chmod(filepath.Join(dir, "a_password"), 0o644))
	_, err = files.Lookup(t.Context(), "a_password")
	require.ErrorContains(t, err, "chmod 600")
}

// The files of compose.yaml have another name and stay the same files.
func TestFilesOfCompose(t *testing.T) {
	t.Parallel()
	files := Folder{Dir: filepath.Join(t.TempDir(), "secrets"), Compose: true}
	require.NoError(t, files.Make("a_password"))
	before, err := os.Stat(filepath.Join(files.Dir, "a_password.txt"))
	require.NoError(t, err)
	require.NoError(t, files.Put("a_password", "a_b", "another"))
	after, err := os.Stat(filepath.Join(files.Dir, "a_password.txt"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))
	v, err := files.Lookup(t.Context(), "a_password")
	require.NoError(t, err)
	assert.Equal(t, "a_b", v.Username("a"))
	assert.Equal(t, "another", v.Reveal())
	require.Error(t, files.Put("b_password", "b", "there is no file that a container has"))
}

// A reader sees the old secret or the new one, never half of one or none.
func TestFilesAreReplacedInOneStep(t *testing.T) {
	t.Parallel()
	files := Folder{Dir: filepath.Join(t.TempDir(), "secrets")}
	require.NoError(t, files.Put("a_password", "a", "password of a"))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			user := "a"
			if n%2 == 0 {
				user = "a_b"
			}
			assert.NoError(t, files.Put("a_password", user, "password of "+user))
		}
	}()
	for range 500 {
		v, err := files.Lookup(t.Context(), "a_password")
		require.NoError(t, err)
		require.Equal(t, "password of "+v.Username(""), v.Reveal())
	}
	stop()
	<-done
}
