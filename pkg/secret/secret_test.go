package secret_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// password must be in no output of these tests but the controls'.
const password = "hunter2-correct-horse"

// holder has a secret where fmt may not call its methods.
type holder struct {
	Name   string
	hidden secret.Value
	Shown  secret.Value
}

// plain is what holder would be without package secret.
type plain struct {
	Name   string
	hidden string
	Shown  string
}

func outputs(v any) map[string]string {
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%e", "%p", "%b", "%U", "%w", "%z", "%10.3s", "%-v", "% x"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	out["println"] = fmt.Sprintln(v)
	out["error"] = fmt.Errorf("wrapping %v", v).Error()
	for name, marshal := range map[string]func(any) ([]byte, error){"json": json.Marshal, "xml": xml.Marshal} {
		data, err := marshal(v)
		out[name] = fmt.Sprint(string(data), err)
	}
	var buf bytes.Buffer
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("message", "value", v, slog.Group("group", "value", v))
	slog.New(slog.NewTextHandler(&buf, nil)).Info("message", "value", v, slog.Any("list", []any{v})) //nolint:sloglint // both forms are what is tested
	out["slog"] = buf.String()
	return out
}

func TestNeverPrints(t *testing.T) {
	t.Parallel()
	v := secret.NewValue(password, "file", "1")
	h := holder{Name: "name", hidden: v, Shown: v}
	for kind, printed := range map[string]any{
		"value": v, "pointer": &v, "slice": []secret.Value{v}, "map": map[string]secret.Value{"key": v},
		"struct": h, "pointer to struct": &h, "any": any(v), "nested": []any{map[string]any{"x": &h}},
	} {
		for way, out := range outputs(printed) {
			assert.NotContains(t, out, "hunter2", "%s by %s", kind, way)
			assert.NotContains(t, strings.ToLower(out), fmt.Sprintf("%x", password[:7]), "%s by %s in hex", kind, way)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		assert.Equal(t, secret.Redacted, fmt.Sprintf(verb, v), verb)
	}
	data, err := json.Marshal(map[string]any{"password": v})
	require.NoError(t, err)
	assert.JSONEq(t, `{"password":"[redacted]"}`, string(data))
	assert.Equal(t, password, v.Reveal())
	assert.Equal(t, "file", v.Source())
	assert.Equal(t, "1", v.Version())
	assert.Empty(t, secret.Value{}.Reveal(), "the zero value")
}

// TestPrintsPlain is the control: the same outputs do show a string.
func TestPrintsPlain(t *testing.T) {
	t.Parallel()
	out := outputs(plain{Name: "name", hidden: password, Shown: password})
	for _, way := range []string{"%v", "%+v", "%#v", "%s", "%p", "json", "slog", "println", "error"} {
		assert.Contains(t, out[way], "hunter2", way)
	}
}

// source answers what the test says, and counts.
type source struct {
	value secret.Value
	err   error
	asked int
}

func (s *source) Lookup(context.Context, string) (secret.Value, error) {
	s.asked++
	return s.value, s.err
}

func TestChain(t *testing.T) {
	t.Parallel()
	first := func() *source { return &source{value: secret.NewValue("first", "1", "")} }
	second := func() *source { return &source{value: secret.NewValue("second", "2", "")} }
	missing := func() *source { return &source{err: fmt.Errorf("looking: %w", secret.ErrNotFound)} }
	broken := errors.New("vault is sealed")

	a, b := first(), second()
	v, err := secret.Chain{a, b}.Lookup(t.Context(), "name")
	require.NoError(t, err)
	assert.Equal(t, "first", v.Reveal())
	assert.Zero(t, b.asked, "the first answer ends the search")

	v, err = secret.Chain{missing(), second()}.Lookup(t.Context(), "name")
	require.NoError(t, err)
	assert.Equal(t, "second", v.Reveal(), "the control: a source that does not hold it is passed")

	b = second()
	v, err = secret.Chain{&source{err: broken, value: secret.NewValue("stale", "", "")}, b}.Lookup(t.Context(), "name")
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, secret.ErrNotFound)
	assert.Contains(t, err.Error(), "name", "the error names the secret")
	assert.Zero(t, b.asked, "a source that fails is not fallen through")
	assert.Empty(t, v.Reveal())

	for _, c := range []secret.Chain{nil, {missing(), missing()}} {
		_, err = c.Lookup(t.Context(), "name")
		require.ErrorIs(t, err, secret.ErrNotFound)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
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
	path := filepath.Join(t.TempDir(), "password")
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
		require.ErrorContains(t, err, "chmod 600 "+path, "%04o: the command that mends it", mode)
		require.NotErrorIs(t, err, secret.ErrNotFound, "it must not be fallen through")
		require.NotContains(t, err.Error(), password)
		require.Empty(t, v.Reveal())
	}
}

func TestFileNames(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
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
