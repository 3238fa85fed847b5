package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
)

func readSecrets(t *testing.T, st mesh.State) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range credential.Names(credential.All()) {
		text, err := os.ReadFile(filepath.Join(st.SecretsDir(), name))
		require.NoError(t, err)
		all[name] = string(text)
	}
	return all
}

func TestSetup(t *testing.T) {
	t.Parallel()
	st := mesh.State{Dir: filepath.Join(t.TempDir(), "state")}
	g := &globals{StateDir: st.Dir}
	run := func(c setupCommand) error { return c.Run(t.Context(), g, slog.New(slog.DiscardHandler)) }
	require.NoError(t, run(setupCommand{DryRun: true}))
	assert.NoDirExists(t, st.SecretsDir())

	require.NoError(t, run(setupCommand{}))
	first := readSecrets(t, st)
	unique := map[string]bool{}
	for _, text := range first {
		unique[text] = true
	}
	assert.Len(t, unique, len(first))

	require.NoError(t, run(setupCommand{}))
	require.NoError(t, run(setupCommand{DryRun: true, Force: true}))
	assert.Equal(t, first, readSecrets(t, st), "nothing is replaced unasked")

	require.NoError(t, os.MkdirAll(st.Path("postgres", "data"), 0o700))
	require.NoError(t, run(setupCommand{Force: true}))
	for name, text := range readSecrets(t, st) {
		assert.Equal(t, name == mesh.SecretSuperuser, text == first[name], "%s: a cluster that is there knows the superuser's", name)
	}

	lock, err := st.Lock()
	require.NoError(t, err)
	require.ErrorContains(t, run(setupCommand{Force: true}), "f2mesh secret rotate --all")
	require.NoError(t, run(setupCommand{Force: true, Dir: filepath.Join(t.TempDir(), "other")}))
	require.NoError(t, lock.Close())

	require.ErrorContains(t, run(setupCommand{Force: true, Setup: containers.Setup{Compose: t.TempDir()}}), "--force")

	require.NoError(t, os.Chmod(st.SecretsDir(), 0o755))
	require.ErrorContains(t, run(setupCommand{}), "chmod 700")
}

// The table of credentials has all users of the servers.
func TestCredentialsAreThoseOfTheServers(t *testing.T) {
	t.Parallel()
	var users []string
	for _, c := range credential.Of(credential.NATS) {
		users = append(users, c.User)
	}
	assert.ElementsMatch(t, natsserver.Users(), users)
}
