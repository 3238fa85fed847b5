package doctor

import (
	"context"
	"errors"
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// Every check is in docs/security.md, and every check named there exists.
func TestGuideTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/security.md")
	require.NoError(t, err)
	named := map[string]bool{}
	for _, match := range regexp.MustCompile("`((?:secret|mqtt|nats|database|health|est|tls|network|process|container|loss|input|program|vault)-[a-z-]+)`").FindAllStringSubmatch(string(text), -1) {
		named[match[1]] = true
	}
	for _, c := range Checks() {
		assert.True(t, named[c.Name], "docs/security.md does not name %s", c.Name)
		delete(named, c.Name)
	}
	assert.Empty(t, named, "docs/security.md names checks that do not exist")
}

func TestChecksAreComplete(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Checks() {
		assert.False(t, seen[c.Name], c.Name)
		seen[c.Name] = true
		for _, text := range []string{c.Name, c.Guide, c.Try, c.Fix} {
			assert.NotEmpty(t, text, c.Name)
		}
		assert.NotNil(t, c.Run, c.Name)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	all := []Check{{Name: "mqtt-one"}, {Name: "mqtt-two"}, {Name: "nats-one"}}
	for _, test := range []struct {
		only []string
		want int
	}{{nil, 3}, {[]string{"mqtt"}, 2}, {[]string{"nats-one", "mqtt-two"}, 2}} {
		got, err := choose(all, test.only)
		require.NoError(t, err)
		assert.Len(t, got, test.want)
	}
	_, err := choose(all, []string{"mqtt-"})
	require.Error(t, err)
}

// Every login of a mesh is tried for what it must not do. The bearer of everything,
// PostgreSQL's superuser, is not.
func TestEachUserIsTried(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{superuser: true}
	for _, f := range confinedNATS() {
		tried[f.secret] = true
	}
	for _, a := range apart() {
		tried[a.secret] = true
	}
	for _, p := range forbiddenSQL() {
		tried[p.secret] = true
	}
	for _, c := range append(credential.Of(credential.NATS), credential.Of(credential.Postgres)...) {
		assert.True(t, tried[c.Name], "nobody tries the user of %s", c.Name)
	}
}

// A server that is down refuses everybody, which proves nothing.
func TestRefusedAsksForAControl(t *testing.T) {
	t.Parallel()
	works, fails := func() error { return nil }, func() error { return errors.New("no") }
	assert.Equal(t, OK, refused([]attempt{{"a", works, fails}}).State)
	assert.Equal(t, Failed, refused([]attempt{{"a", works, works}}).State)
	assert.Equal(t, Failed, refused([]attempt{{"a", fails, fails}}).State)
	assert.Equal(t, Failed, refused([]attempt{{"a", works, fails}, {"b", works, works}}).State)
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	states := func(all ...State) (results []Result) {
		for _, s := range all {
			results = append(results, Result{Name: "x", Finding: Finding{State: s}})
		}
		return results
	}
	require.NoError(t, Verdict(states(OK, Warning, Skipped)))
	require.ErrorIs(t, Verdict(states(OK, Failed)), ErrFailed)
	require.ErrorIs(t, Verdict(states(OK, Skipped), Skipped), ErrFailed)
	require.NoError(t, Verdict(states(OK, Warning), Skipped))
	fixed := Check{Fix: "fix it", Run: func(context.Context, *Mesh) Finding { return ok("") }}
	assert.Empty(t, fixed.run(t.Context(), &Mesh{}).Fix)
	fixed.Run = func(context.Context, *Mesh) Finding { return notChecked("") }
	assert.Empty(t, fixed.run(t.Context(), &Mesh{}).Fix, "nothing was seen to be bad")
	fixed.Run = func(context.Context, *Mesh) Finding { return failed("") }
	assert.Equal(t, "fix it", fixed.run(t.Context(), &Mesh{}).Fix)
}

func TestKernelIP(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "127.0.0.1", kernelIP("0100007F").String())
	assert.Equal(t, "::1", kernelIP("00000000000000000000000001000000").String())
	assert.False(t, kernelIP("00000000").IsLoopback())
	assert.False(t, kernelIP("x").IsLoopback())
}

func TestGone(t *testing.T) {
	t.Parallel()
	assert.Empty(t, gone([]string{"a"}, []string{"b", "a"}))
	assert.Equal(t, []string{"table a is gone"}, gone([]string{"a", "b"}, []string{"b"}))
}
