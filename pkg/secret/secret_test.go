package secret_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

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
