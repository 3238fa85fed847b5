package natsserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

func passwordLineOf(file, key string) string {
	for line := range strings.Lines(file) {
		if strings.HasPrefix(line, key+":") {
			return line
		}
	}
	return ""
}

// The server reads what Write wrote; a password that stays the same keeps its line,
// one that has changed is put in force.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := identity.OpenAuthority(filepath.Join(t.TempDir(), "certs"))
	require.NoError(t, err)
	cert, key := filepath.Join(t.TempDir(), "server.crt"), filepath.Join(t.TempDir(), "server.key")
	require.NoError(t, authority.IssueServer(cert, key, []string{"nats"}))
	f := ConfigFiles{
		Dir: dir, At: dir, StoreDir: t.TempDir(), CertFile: cert, KeyFile: key,
		Passwords: map[string]string{Bridge: "the bridge's", Operator: "the operator's"},
	}
	read := func() string {
		data, err := os.ReadFile(filepath.Join(dir, passwordsFile))
		require.NoError(t, err)
		return string(data)
	}
	require.NoError(t, f.Write())
	options, err := server.ProcessConfigFile(filepath.Join(dir, "nats-server.conf"))
	require.NoError(t, err)
	assert.Equal(t, "0.0.0.0", options.Host)
	assert.Equal(t, 4222, options.Port)
	assert.Equal(t, "127.0.0.1", options.HTTPHost, "statistics are for the container itself")
	assert.Equal(t, f.StoreDir, options.StoreDir)
	assert.NotNil(t, options.TLSConfig)
	assert.True(t, options.SyncAlways)
	f.Filling = true
	require.NoError(t, f.Write())
	options, err = server.ProcessConfigFile(filepath.Join(dir, "nats-server.conf"))
	require.NoError(t, err)
	assert.False(t, options.SyncAlways, "a server that is filled")
	f.Filling = false

	first := read()
	require.NoError(t, f.Write())
	for _, key := range []string{"BRIDGE_PASSWORD", "OPERATOR_PASSWORD"} {
		assert.Equal(t, passwordLineOf(first, key), passwordLineOf(read(), key))
	}
	f.Passwords[Operator] = "another"
	f.KeepPasswords = true
	require.NoError(t, f.Write())
	f.KeepPasswords = false
	assert.Equal(t, passwordLineOf(first, "OPERATOR_PASSWORD"), passwordLineOf(read(), "OPERATOR_PASSWORD"))
	require.NoError(t, f.Write())
	assert.Equal(t, passwordLineOf(first, "BRIDGE_PASSWORD"), passwordLineOf(read(), "BRIDGE_PASSWORD"))
	assert.NotEqual(t, passwordLineOf(first, "OPERATOR_PASSWORD"), passwordLineOf(read(), "OPERATOR_PASSWORD"))
}
