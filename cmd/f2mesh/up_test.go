package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
)

// TestUp is what people type first, with the program itself: up, look, down,
// and up again on what is there.
func TestUp(t *testing.T) {
	t.Parallel()
	dir := accounttest.TempDir(t)
	stateDir := filepath.Join(dir, "my state") // a blank, as some people have in their paths
	self, err := os.Executable()
	require.NoError(t, err)
	f2mesh := func(args ...string) (string, error) {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self, args...)
		cmd.Env = append(os.Environ(), "F2MESH_TEST_RUN=1", "F2MESH_STATE_DIR="+stateDir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	works := func(args ...string) string {
		out, err := f2mesh(args...)
		require.NoError(t, err, "%v: %s", args, out)
		return out
	}
	t.Cleanup(func() {
		out, err := f2mesh("down", "--volumes")
		assert.NoError(t, err, out)
		assert.NoDirExists(t, stateDir)
	})

	out, err := f2mesh("up", "--detach", "--host=192.0.2.1")
	require.Error(t, err, "the control: an address that this machine has not")
	assert.Contains(t, out, "192.0.2.1", "the failure names its cause")

	out = works("up", "--detach", "--interval=100ms", "--controllers=2", "--secret-poll=300ms")
	watchMQTT(t, out, works("env"))
	out, err = f2mesh("up", "--detach")
	require.Error(t, err)
	assert.Contains(t, out, "already")
	assert.Contains(t, works("env"), "PGHOST=")
	assert.Contains(t, works("env"), "USE_CONNECTION_POOLING='true'")
	for _, row := range []string{"bridge", "decoder", "writer"} {
		assert.Contains(t, works("status"), row)
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		out, err := f2mesh("audit")
		assert.NoError(c, err, out)
		assert.Contains(c, out, "written")
	}, time.Minute, 100*time.Millisecond)
	devicesFromCommandLine(t, f2mesh)
	rotateFromCommandLine(t, f2mesh, filepath.Join(stateDir, "secrets", "timescale_password"))
	works("down")
	works("up", "--detach", "--no-simulate", "--no-connection-pooling")
	assert.Contains(t, works("env"), "TIMESCALE_POOLED_DSN=''")
	assert.Contains(t, works("env"), "PGHOST=", "the second start, too, returns when the mesh is up")
	works("audit", "--wait=30s")
	works("down")
	assert.Contains(t, works("down"), "no mesh runs")
}

// Who signed at the last start does so at the next.
func TestIssuerAsBefore(t *testing.T) {
	t.Parallel()
	st := mesh.State{Dir: t.TempDir()}
	assert.Equal(t, mesh.IssuerFlags{}, new(upCommand).issuer(st), "the first start")
	vault, files := mesh.IssuerFlags{Issuer: mesh.IssuerVault, Mount: "pki"}, mesh.IssuerFlags{Issuer: "files"}
	require.NoError(t, st.Save(mesh.Description{Issuer: vault}))
	assert.Equal(t, vault, new(upCommand).issuer(st))
	assert.Equal(t, files, (&upCommand{Issuer: files}).issuer(st), "unless somebody says")
}

// watchMQTT types what the summary proposes.
func watchMQTT(t *testing.T, summary, env string) {
	t.Helper()
	i := strings.Index(summary, "XDG_CONFIG_HOME=")
	require.GreaterOrEqual(t, i, 0, summary)
	line, _, _ := strings.Cut(summary[i:], "\n")
	assert.NotContains(t, line, " -P ", "no password in arguments, which everybody can read")
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		accounttest.SkipMissing(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", env+line+" -C 1").CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "tele/f2-")
}

// rotateFromCommandLine rotates a credential of the running mesh, and looks at all.
func rotateFromCommandLine(t *testing.T, f2mesh func(...string) (string, error), file string) {
	t.Helper()
	for _, wrong := range [][]string{{}, {"stranger"}, {"--all", "timescale_password"}} {
		out, err := f2mesh(append([]string{"secret", "rotate"}, wrong...)...)
		require.Error(t, err, out)
	}
	out, err := f2mesh("secret", "rotate", "--dry-run", "timescale_password")
	require.NoError(t, err, out)
	assert.Contains(t, out, "lock user f2mesh_writer out")
	out, err = f2mesh("secret", "rotate", "timescale_password")
	require.NoError(t, err, out)
	assert.Contains(t, out, "user f2mesh_writer -> f2mesh_writer_b")
	assert.Contains(t, out, "messages in")
	out, err = f2mesh("secret", "status")
	require.NoError(t, err, out)
	assert.Regexp(t, `writer +timescale_password +file`, out)

	require.NoError(t, os.Chmod(file, 0o644))
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		out, err := f2mesh("secret", "status")
		assert.Error(c, err)
		assert.Contains(c, out, "DOWNGRADED")
		assert.Contains(c, out, "chmod 600")
	}, time.Minute, 100*time.Millisecond)
	require.NoError(t, os.Chmod(file, 0o600))
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		out, err := f2mesh("secret", "status", "--json")
		assert.NoError(c, err, out)
	}, time.Minute, 100*time.Millisecond)
}

// TestFleetSize: a mesh without the demo fleet stays so.
func TestFleetSize(t *testing.T) {
	t.Parallel()
	st, one := mesh.State{Dir: t.TempDir()}, 1
	assert.Equal(t, demoControllers, (&upCommand{}).fleetSize(st))
	require.NoError(t, st.Save(mesh.Description{Controllers: 0}))
	assert.Zero(t, (&upCommand{}).fleetSize(st))
	assert.False(t, (&upCommand{Simulate: true}).simulates(0))
	assert.Equal(t, 1, (&upCommand{Controllers: &one}).fleetSize(st), "the control: who says so gets it")
	assert.True(t, (&upCommand{Simulate: true}).simulates(1))
}

// TestPublicAddress: --host moves what controllers and people reach with TLS, and leaves
// the rest on loopback. (127.0.0.2 is another address of this machine.)
func TestPublicAddress(t *testing.T) {
	t.Parallel()
	const elsewhere = "127.0.0.2"
	m := startMesh(t, func(cfg *meshConfig) { cfg.Public = elsewhere })
	reached := func(host string, number int) bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort(host, strconv.Itoa(number)))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}
	p := m.Ports()
	for name, number := range map[string]int{"controllers": p.MQTTTLS, "browsers": p.WebSocket, "EST": p.EST, "health": p.HTTP} {
		eventually(t, func() bool { return reached(elsewhere, number) }, "%s", name)
	}
	for name, number := range map[string]int{"services": p.MQTT, "tools": p.People, "NATS": p.NATS, "PostgreSQL": p.Postgres, "PgBouncer": p.PgBouncer} {
		assert.False(t, reached(elsewhere, number), name)
		assert.True(t, reached(mesh.Loopback, number), "%s, the control", name)
	}
	patient := mesh.DoctorTarget(m.State, m.Describe(), m.Secrets.LogIn)
	for _, check := range []string{"network-listeners", "mqtt-listeners", "tls-certificates", "health-password"} {
		r := find(t, patient, check)
		assert.Equal(t, doctor.OK, r.State, "%s: %s", check, r.Seen)
	}
}
