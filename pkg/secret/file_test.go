package secret_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// privateDir is a directory as Files wants it.
func privateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	return dir
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := privateDir(t)
	write := func(name, text string, mode fs.FileMode) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		require.NoError(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	files := secret.Files(dir)
	write("good", password+"\r\n", 0o600)
	v, err := files.Lookup(t.Context(), "good")
	require.NoError(t, err)
	assert.Equal(t, password, v.Reveal(), "without the newline")
	assert.Equal(t, "file", v.Source())

	require.NoError(t, os.Chtimes(filepath.Join(dir, "good"), time.Time{}, time.Now().Add(time.Hour)))
	later, err := files.Lookup(t.Context(), "good")
	require.NoError(t, err)
	assert.NotEqual(t, v.Version(), later.Version(), "a file that was written again is another version")

	write("spaces", "  two words  \n", 0o400)
	v, err = files.Lookup(t.Context(), "spaces")
	require.NoError(t, err)
	assert.Equal(t, "  two words  ", v.Reveal(), "spaces belong to it")

	_, err = files.Lookup(t.Context(), "absent")
	require.ErrorIs(t, err, secret.ErrNotFound)
	write("empty", "\n", 0o600)
	_, err = files.Lookup(t.Context(), "empty")
	require.ErrorContains(t, err, "empty")
	require.NotErrorIs(t, err, secret.ErrNotFound, "an empty file is a mistake, not an absence")
}

func TestFileModes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(privateDir(t), "password")
	require.NoError(t, os.WriteFile(path, []byte(password), 0o600))
	for mode := range fs.FileMode(0o1000) {
		if mode&0o400 == 0 {
			continue // its owner could not read it, unless root
		}
		require.NoError(t, os.Chmod(path, mode))
		v, err := secret.Files(filepath.Dir(path)).Lookup(t.Context(), "password")
		if mode&0o077 == 0 {
			require.NoError(t, err, "%04o", mode)
			require.Equal(t, password, v.Reveal())
			continue
		}
		require.ErrorContains(t, err, "chmod 600 "+path, "%04o: the command that fixes it", mode)
		require.NotErrorIs(t, err, secret.ErrNotFound, "it must not be fallen through")
		require.NotContains(t, err.Error(), password)
		require.Empty(t, v.Reveal())
	}
}

func TestFileNames(t *testing.T) {
	t.Parallel()
	parent := privateDir(t)
	dir := filepath.Join(parent, "secrets")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(parent, "outside"), []byte(password), 0o600))
	for _, name := range []string{"../outside", "", ".", "..", "a/b", "/etc/hostname", "./x"} {
		_, err := secret.Files(dir).Lookup(t.Context(), name)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, secret.ErrNotFound, "%q is refused, not sought", name)
	}
	_, err := secret.Files(parent).Lookup(t.Context(), "outside")
	require.NoError(t, err, "the control")
}

func TestEnvironment(t *testing.T) {
	t.Setenv("F2TEST_NATS_PASSWORD", password)
	t.Setenv("F2TEST_EMPTY", "")
	v, err := secret.Environment("F2TEST_").Lookup(t.Context(), "nats_password")
	require.NoError(t, err)
	assert.Equal(t, password, v.Reveal())
	assert.Equal(t, "environment", v.Source())
	for _, name := range []string{"empty", "absent"} {
		_, err = secret.Environment("F2TEST_").Lookup(t.Context(), name)
		require.ErrorIs(t, err, secret.ErrNotFound, name)
	}
	_, err = secret.Environment("").Lookup(t.Context(), "nats_password")
	require.ErrorIs(t, err, secret.ErrNotFound, "without its prefix it is another variable")
}

func TestDirectoryModes(t *testing.T) {
	t.Parallel()
	dir := privateDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte(password), 0o600))
	for mode := range fs.FileMode(0o1000) {
		if mode&0o500 != 0o500 {
			continue // its owner could not use it, unless root
		}
		require.NoError(t, os.Chmod(dir, mode))
		v, err := secret.Files(dir).Lookup(t.Context(), "password")
		if mode&0o077 == 0 {
			require.NoError(t, err, "%04o", mode)
			require.Equal(t, password, v.Reveal())
			continue
		}
		require.ErrorContains(t, err, "chmod 700 "+dir, "%04o: the command that fixes it", mode)
		require.NotErrorIs(t, err, secret.ErrNotFound)
		require.NotErrorIs(t, err, secret.ErrUnavailable, "it must not be fallen through")
		require.Empty(t, v.Reveal())
	}
	require.NoError(t, os.Chmod(dir, 0o700))
}

// The forms that a file or a variable can have.
var forms = map[string]struct {
	text     string
	password string // "": it is refused
	username string
}{
	"bare":              {text: password, password: password},
	"credential":        {text: `{"username":"f2mesh_b","password":"` + password + `"}`, password: password, username: "f2mesh_b"},
	"password alone":    {text: `{"password":"` + password + `"}`, password: password},
	"spaces in it":      {text: "{ \"username\" : \"b\",\n \"password\" : \"" + password + "\" }\n", password: password, username: "b"},
	"brace elsewhere":   {text: "a{b}", password: "a{b}"},
	"quotes":            {text: `"quoted"`, password: `"quoted"`},
	"cut off":           {text: `{"username":"b","password":"` + password},
	"no password":       {text: `{"username":"` + password + `"}`},
	"empty password":    {text: `{"username":"b","password":""}`},
	"another field":     {text: `{"username":"b","password":"x","passwd":"` + password + `"}`},
	"password a number": {text: `{"username":"b","password":123}`},
	"something behind":  {text: `{"password":"x"} {"password":"` + password + `"}`},
	"not JSON":          {text: "{" + password + "}"},
}

func TestForms(t *testing.T) {
	for name, form := range forms {
		dir := privateDir(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "some_password"), []byte(form.text), 0o600))
		t.Setenv("F2TEST_SOME_PASSWORD", form.text)
		for _, source := range []secret.Source{secret.Files(dir), secret.Environment("F2TEST_")} {
			v, err := source.Lookup(t.Context(), "some_password")
			if form.password == "" {
				require.Error(t, err, name)
				require.NotErrorIs(t, err, secret.ErrNotFound, "%s: a mistake, not an absence", name)
				require.NotContains(t, err.Error(), password, name)
				continue
			}
			require.NoError(t, err, name)
			assert.Equal(t, form.password, v.Reveal(), name)
			want := form.username
			if want == "" {
				want = "fallback"
			}
			assert.Equal(t, want, v.Username("fallback"), name)
		}
	}
}
