package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
)

// secretsOf makes a state directory with secret files, named like their texts.
func secretsOf(t *testing.T, names ...string) mesh.State {
	t.Helper()
	st := mesh.State{Dir: t.TempDir()}
	for _, name := range names {
		require.NoError(t, st.SecretFiles().WriteText(name, "of-file"))
	}
	return st
}

func TestChainWithoutVault(t *testing.T) {
	st := secretsOf(t, "mqtt_password", "nats_bridge_password")
	t.Setenv("F2MESH_MQTT_PASSWORD", "of-environment")
	t.Setenv("F2MESH_POSTGRES_PASSWORD", "of-environment")
	t.Setenv("F2MESH_NATS_BRIDGE_PASSWORD", "of-environment")
	flags := mesh.VaultFlags{VaultOnly: []string{"nats_bridge_password"}}
	chain, err := flags.Chain("bridge", secret.Files(st.SecretsDir()), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for name, want := range map[string]string{"mqtt_password": "of-file", "postgres_password": "of-environment"} {
		v, err := chain.Lookup(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, want, v.Reveal(), name)
	}
	_, err = chain.Lookup(t.Context(), "nats_bridge_password")
	require.ErrorContains(t, err, "Vault-only")

	flags.Addr = "http://vault.example.org:8200"
	_, err = flags.Chain("bridge", secret.Files(st.SecretsDir()), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "unencrypted")
}

// TestVaultBootstrap goes the way of a person: bootstrap, and services that log in.
func TestVaultBootstrap(t *testing.T) {
	server := vaulttest.StartDev(t)
	st := secretsOf(t, "mqtt_password", "nats_bridge_password")
	auth := filepath.Join(st.Dir, "vault")
	t.Setenv("VAULT_ADDR", server.Addr)
	arguments := []string{"--state-dir", st.Dir, "vault", "bootstrap", "--vault-auth-dir", auth}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("VAULT_TOKEN", "")
	require.Equal(t, 1, run(t.Context(), arguments), "no token")
	require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("HOME"), ".vault-token"), []byte(server.Root.Reveal()), 0o644))
	require.Equal(t, 1, run(t.Context(), arguments), "a token that others can read")
	require.NoError(t, os.Chmod(filepath.Join(os.Getenv("HOME"), ".vault-token"), 0o600))
	require.Equal(t, 0, run(t.Context(), append(arguments, "--dry-run")))
	require.NoDirExists(t, auth)
	require.Equal(t, 0, run(t.Context(), arguments))
	require.Equal(t, 1, run(t.Context(), append(arguments, "--reissue", "nobody")))
	require.Equal(t, 0, run(t.Context(), append(arguments, "--reissue", "all")))

	// In containers: the token on standard input, a folder for each service.
	folders := t.TempDir()
	inContainers := append(slices.Clone(arguments), "--vault-auth-dir", folders, "--folders", "--token-stdin")
	require.NoError(t, os.Remove(filepath.Join(os.Getenv("HOME"), ".vault-token")))
	withStdin(t, "")
	require.Equal(t, 1, run(t.Context(), inContainers), "no token")
	withStdin(t, server.Root.Reveal()+"\n")
	require.Equal(t, 1, run(t.Context(), inContainers), "no folder")
	require.NoError(t, os.Mkdir(filepath.Join(folders, "bridge"), 0o700))
	withStdin(t, server.Root.Reveal()+"\n")
	require.Equal(t, 0, run(t.Context(), inContainers))
	logins, err := filepath.Glob(filepath.Join(folders, "*", "*"))
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Join(folders, "bridge", "bridge.role_id"), filepath.Join(folders, "bridge", "bridge.secret_id")}, logins)

	// Vault goes before files: with another file the value is still Vault's.
	require.NoError(t, st.SecretFiles().WriteText("mqtt_password", "changed"))
	flags := mesh.VaultFlags{Config: vault.Config{Addr: server.Addr, Mount: "secret", AuthDir: auth}}
	chain, err := flags.Chain("bridge", secret.Files(st.SecretsDir()), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	v, err := chain.Lookup(t.Context(), "mqtt_password")
	require.NoError(t, err)
	assert.Equal(t, "of-file", v.Reveal())
	assert.Equal(t, "vault", v.Source())
}

// withStdin gives the process a standard input of that text. Whoever calls it is not
// parallel.
func withStdin(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stdin")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	file, err := os.Open(path)
	require.NoError(t, err)
	old := os.Stdin
	os.Stdin = file
	t.Cleanup(func() { os.Stdin = old; _ = file.Close() })
}

// TestVaultWithoutLogin has a VAULT_ADDR as many shells have it, and no login yet:
// the chain goes on to the files, with its alarm.
func TestVaultWithoutLogin(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "")
	st := secretsOf(t, "mqtt_password")
	flags := mesh.VaultFlags{Config: vault.Config{Addr: "http://127.0.0.1:1", Mount: "secret", AuthDir: st.Path("vault")}}
	held := local.WatchWarnings(slog.New(slog.DiscardHandler))
	k, err := mesh.OpenSecrets(&flags, st, slog.New(held))
	require.NoError(t, err)
	defer k.Close()
	v, err := k.Lookup(t.Context(), "mqtt_password")
	require.NoError(t, err)
	assert.Equal(t, "of-file", v.Reveal())
	assert.Contains(t, held.Take(), "unset VAULT_ADDR")

	service := mesh.SecretFlags{VaultFlags: flags}
	store, done, err := service.Store("bridge", secret.Files(st.SecretsDir()), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer done()
	v, err = store.Get(t.Context(), "mqtt_password")
	require.NoError(t, err)
	assert.Equal(t, "of-file", v.Reveal())
	require.Len(t, store.Status(), 1)
	assert.True(t, store.Status()[0].Downgraded, "which is the alarm")
	assert.Contains(t, store.Status()[0].Problem, "vault bootstrap")
}
