package doctor

import (
	"context"
	"errors"
	"net"
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
	assert.Equal(t, OK, refused(attempt{"a", works, fails}).State)
	assert.Equal(t, Failed, refused(attempt{"a", works, works}).State)
	assert.Equal(t, Failed, refused(attempt{"a", fails, fails}).State)
	assert.Equal(t, Failed, refused(attempt{"a", works, fails}, attempt{"b", works, works}).State)
}

func TestErr(t *testing.T) {
	t.Parallel()
	states := func(all ...Verdict) (results Results) {
		for _, s := range all {
			results = append(results, CheckResult{Name: "x", Finding: Finding{State: s}})
		}
		return results
	}
	require.NoError(t, states(OK, Warning, Skipped).Err(false))
	require.ErrorIs(t, states(OK, Failed).Err(false), ErrFailed)
	require.ErrorIs(t, states(OK, Failed).Err(true), ErrFailed)
	require.ErrorIs(t, states(OK, Skipped).Err(true), ErrFailed)
	require.ErrorIs(t, states(OK, Warning).Err(true), ErrFailed)
	require.NoError(t, states(OK, OK).Err(true))
}

// A check ends early where a step fails or it does not apply, and only what is wrong has a fix.
func TestCheckEndsEarly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		run       func()
		want      Verdict
		seen, fix string
	}{
		"good":           {func() {}, OK, "", ""},
		"step fails":     {func() { must(0, errors.New("no server")) }, Failed, "the check could not run: no server", "fix it"},
		"does not apply": {func() { need(false, "no %s", "pooler") }, Skipped, "no pooler", ""},
		"no devices":     {func() { (&Target{Devices: "/nonexistent"}).needDevices(2) }, Skipped, "this machine does not have the bundles of two devices: register two with `f2mesh device register`, without --csr", ""},
		"failed":         {func() { panic(failed("open")) }, Failed, "open", "fix it"},
		"warning":        {func() { panic(warning("old")) }, Warning, "old", "fix it"},
	} {
		c := Check{Fix: "fix it", Run: func(context.Context, *Target) Finding { test.run(); return ok("") }}
		r := c.result(t.Context(), &Target{})
		assert.Equal(t, test.want, r.State, name)
		assert.Equal(t, test.seen, r.Seen, name)
		assert.Equal(t, test.fix, r.Fix, name)
	}
	bug := Check{Run: func(context.Context, *Target) Finding { panic("bug") }}
	assert.PanicsWithValue(t, "bug", func() { bug.result(t.Context(), &Target{}) }, "a bug is not a finding")
}

func TestListening(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Logf("no IPv6: %v", err)
			continue
		}
		t.Cleanup(func() { _ = listener.Close() })
		port := listener.Addr().(*net.TCPAddr).Port
		all := listening()
		i := 0
		for i < len(all) && int(all[i].LocalPort) != port {
			i++
		}
		require.Less(t, i, len(all), address)
		assert.Equal(t, address != ":0", all[i].LocalAddr.IsLoopback(), address)
		assert.True(t, socketsOf(os.Getpid())[all[i].Inode], address)
		assert.True(t, socketsOf(os.Getppid())[all[i].Inode], "also those of a child: %s", address)
		assert.False(t, socketsOf(-1)[all[i].Inode], address)
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	assert.Empty(t, missing([]string{"a"}, []string{"b", "a"}))
	assert.Equal(t, []string{"table a is missing"}, missing([]string{"a", "b"}, []string{"b"}))
}
