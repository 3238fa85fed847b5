package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
)

// vaultWithSecrets is a Vault that holds all secrets of a mesh.
func vaultWithSecrets(t *testing.T) mesh.VaultFlags {
	t.Helper()
	server := vaulttest.StartDev(t)
	files := credential.Folder{Dir: filepath.Join(t.TempDir(), "secrets")}
	for _, name := range credential.Names(credential.All()) {
		require.NoError(t, files.Make(name))
	}
	flags := mesh.VaultFlags{Config: server.Config(filepath.Join(t.TempDir(), "vault"))}
	b := vault.Bootstrap{
		Config: flags.Config, SecretsDir: files.Dir, Report: func(vault.Step) {},
		Roles: vault.Roles{TokenTTL: time.Hour, TokenMaxTTL: 24 * time.Hour, WrapTTL: 5 * time.Minute},
	}
	require.NoError(t, b.Run(t.Context(), server.Root))
	return flags
}

// TestRotateInVault rotates credentials that are in Vault, of each kind, with the
// operator's own login. The file of a secret follows, and one that is in Vault alone gets none.
func TestRotateInVault(t *testing.T) {
	t.Parallel()
	flags := vaultWithSecrets(t)
	m := startMesh(t, quickPoll, func(c *meshConfig) { c.Secrets.VaultFlags = flags })
	r := m.rotator(t)
	tr := startTraffic(t, m.device(t, mac))
	require.NoError(t, m.State.SecretFiles().WriteText("mqtt_password", "of-file"))
	for _, name := range []string{"mqtt_password", "nats_writer_password", "timescale_password", "nats_operator_password"} {
		c, _ := credential.Find(name)
		_, before, err := mesh.LogIn(t.Context(), r.Keeper, name)
		require.NoError(t, err)
		result, err := rotation.Run(t.Context(), r.Config(t.Context(), c))
		require.NoError(t, err, name)
		assert.Equal(t, "vault 1 2", result.Source+" "+result.Old+" "+result.New)
		require.NoError(t, r.Connected(t.Context()))
		rotated(t, r, c, before)
		if name != "mqtt_password" {
			assert.NoFileExists(t, filepath.Join(m.State.SecretsDir(), name))
			continue
		}
		user, password, err := mesh.LogIn(t.Context(), r.Keeper, name)
		require.NoError(t, err)
		inFile, err := m.State.SecretFiles().Lookup(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, user+" "+password, inFile.Username("")+" "+inFile.Reveal())
	}
	m.reconnectReaders(t)
	tr.finish(t, m)
}

func TestKeeperReplacesOnlyTheNewestVersion(t *testing.T) {
	t.Parallel()
	flags := vaultWithSecrets(t)
	st := mesh.State{Dir: t.TempDir()}
	inVault, err := mesh.OpenSecrets(&flags, st, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer inVault.Close()
	inFiles, err := mesh.OpenSecrets(&mesh.VaultFlags{}, st, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, inFiles.Ensure(t.Context()))
	for source, k := range map[string]*mesh.Secrets{"vault": inVault, "file": inFiles} {
		first, err := k.Lookup(t.Context(), "mqtt_password")
		require.NoError(t, err)
		require.Equal(t, source, first.Source())
		second, err := k.Put(t.Context(), "mqtt_password", "bridge_b", "second", first)
		require.NoError(t, err)
		assert.Equal(t, "bridge_b second", second.Username("")+" "+second.Reveal())
		assert.NotEqual(t, first.Version(), second.Version())
		_, err = k.Put(t.Context(), "mqtt_password", "bridge", "third", first)
		require.Error(t, err, source)
		now, err := k.Lookup(t.Context(), "mqtt_password")
		require.NoError(t, err)
		assert.Equal(t, "second", now.Reveal(), source)
	}
	_, err = inFiles.Put(t.Context(), "mqtt_password", "bridge", "x", secret.NewValue("x", "environment", ""))
	require.ErrorContains(t, err, "move it to a secret file or to Vault")
}

// TestCommandsDuringAnOutage log in with what stands below Vault, and a mesh starts with
// it. A rotation does not: what is in Vault may be newer.
func TestCommandsDuringAnOutage(t *testing.T) {
	st := mesh.State{Dir: t.TempDir()}
	for _, name := range append(credential.Names(credential.All()), credential.HealthAPI) {
		require.NoError(t, st.SecretFiles().Make(name))
	}
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1") // nobody listens there
	t.Setenv("F2MESH_VAULT_AUTH_DIR", st.Path("vault"))
	require.NoError(t, os.MkdirAll(st.Path("vault"), 0o700))
	for _, name := range []string{"operator.role_id", "operator.secret_id"} {
		require.NoError(t, os.WriteFile(st.Path("vault", name), []byte("00000000-0000-0000-0000-000000000000\n"), 0o600))
	}
	var log bytes.Buffer
	st.Vault = vaultFromEnvironment
	lenient, err := st.Secrets(slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	defer lenient.Close()
	v, err := lenient.Lookup(t.Context(), "registry_password")
	require.NoError(t, err)
	assert.Equal(t, "file", v.Source())
	assert.Contains(t, log.String(), "Vault cannot be asked")
	assert.NotContains(t, log.String(), v.Reveal())

	flags, err := vaultFromEnvironment()
	require.NoError(t, err)
	log.Reset()
	m, err := local.New(st, local.Config{Host: mesh.Loopback, Secrets: mesh.SecretFlags{VaultFlags: flags}}, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	v, err = m.Secrets.Lookup(t.Context(), "postgres_password")
	require.NoError(t, err)
	assert.Equal(t, "file", v.Source())
	assert.Contains(t, log.String(), "Vault cannot be asked")
	require.NoError(t, m.Remove())

	strict, err := mesh.OpenSecrets(&flags, st, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer strict.Close()
	_, err = strict.Lookup(t.Context(), "registry_password")
	require.ErrorIs(t, err, secret.ErrUnavailable, "the control")
}
