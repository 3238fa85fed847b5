package credential

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// secretFile makes a file as setup does, and answers what reads it.
func secretFile(t *testing.T) (path string, read func() (secret.Value, error)) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	path = filepath.Join(dir, "a_password")
	require.NoError(t, os.WriteFile(path, []byte("the password of setup\n"), 0o600))
	return path, func() (secret.Value, error) { return secret.Files(dir).Lookup(t.Context(), "a_password") }
}

func pair(t *testing.T, user, password string) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]string{"username": user, "password": password})
	require.NoError(t, err)
	return data
}

// A container has a secret mounted as a file. It follows what is written into that file, and not what takes its name.
func TestOverwriteKeepsTheFile(t *testing.T) {
	t.Parallel()
	path, read := secretFile(t)
	mounted, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = mounted.Close() }()
	see := func() string {
		text := make([]byte, 2*sector)
		n, _ := mounted.ReadAt(text, 0)
		return strings.TrimRight(string(text[:n]), "\n")
	}
	require.Equal(t, "the password of setup", see())
	for _, user := range []string{"a_b", "a", "a_b"} {
		require.NoError(t, overwrite(path, pair(t, user, "password of "+user)))
		assert.JSONEq(t, string(pair(t, user, "password of "+user)), see())
		v, err := read()
		require.NoError(t, err)
		assert.Equal(t, "password of "+user, v.Reveal())
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
		assert.EqualValues(t, sector, info.Size(), "the same length: after a power cut one content is there as a whole")
	}
	require.NoError(t, Folder{Dir: filepath.Dir(path)}.Put("a_password", "a", "another"))
	assert.NotContains(t, see(), "another", "the control: a file that takes the name is not seen")
	require.ErrorContains(t, overwrite(path, make([]byte, sector+1)), "must not have more than 512")
}

// A reader that comes in the middle of a write has a version that is not the last one, whatever it has read, and so it
// reads again.
func TestOverwriteEndsWithAVersionOfItsOwn(t *testing.T) {
	t.Parallel()
	path, read := secretFile(t)
	old := pair(t, "a_b", "password of a_b")
	require.NoError(t, overwrite(path, old))
	next := pair(t, "a", "password of a")
	for cut := range len(next) + 1 { // a write that was broken off there, or is not further yet
		require.NoError(t, overwrite(path, old))
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = file.WriteAt(next[:cut], 0)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		torn, _ := read() // a mixture, or an error
		require.NoError(t, overwrite(path, next))
		whole, err := read()
		require.NoError(t, err)
		require.Equal(t, "password of a", whole.Reveal())
		require.NotEqual(t, torn.Version(), whole.Version(), "cut at %d", cut)
	}
	ahead := time.Now().Add(time.Hour).Truncate(time.Millisecond) // the clock was set back since
	require.NoError(t, os.Chtimes(path, time.Time{}, ahead))
	require.NoError(t, overwrite(path, old))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, info.ModTime().After(ahead))
}

// Who reports the version that a write ended with has the secret of that write, or of a later one: never an older one,
// which is going to be locked out.
func TestOverwriteWhileOthersRead(t *testing.T) {
	t.Parallel()
	path, read := secretFile(t)
	type seen struct{ version, password string }
	var mu sync.Mutex
	got := map[seen]bool{}
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if v, err := read(); err == nil {
					mu.Lock()
					got[seen{v.Version(), v.Reveal()}] = true
					mu.Unlock()
				}
			}
		})
	}
	place, numbers := map[string]int{}, map[string]int{} // of versions and of passwords, in the order of writing
	for n := range 300 {
		password := fmt.Sprintf("password %d%s", n, strings.Repeat("x", n%20))
		require.NoError(t, overwrite(path, pair(t, "a", password)))
		v, err := read()
		require.NoError(t, err)
		require.NotContains(t, place, v.Version())
		place[v.Version()], numbers[password] = n, n
	}
	stop()
	readers.Wait()
	require.NotEmpty(t, got)
	for s := range got {
		n, last := place[s.version]
		if number, whole := numbers[s.password]; last && whole {
			assert.GreaterOrEqual(t, number, n, s.version)
		}
	}
}
