package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The rules of Start hold for a server in a container too; what is its own comes
// last, and so holds.
func TestFiles(t *testing.T) {
	t.Parallel()
	source := filepath.Join(t.TempDir(), "pem")
	require.NoError(t, os.WriteFile(source, []byte("pem"), 0o600))
	f := ConfigFiles{
		Dir: t.TempDir(), At: "/etc/postgresql", DataDir: "/data", SocketDir: "/run/socket",
		CertFile: source, KeyFile: source, Settings: map[string]string{"shared_buffers": "64MB"},
	}
	require.NoError(t, f.Write())
	read := func(name string) string {
		info, err := os.Stat(filepath.Join(f.Dir, name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode(), name)
		data, err := os.ReadFile(filepath.Join(f.Dir, name))
		require.NoError(t, err)
		return string(data)
	}
	settings := map[string]string{}
	for line := range strings.Lines(read("postgresql.conf")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " = "); ok {
			settings[name] = strings.Trim(value, "'")
		}
	}
	for name, want := range map[string]string{
		"ssl": "on", "ssl_min_protocol_version": "TLSv1.2", "password_encryption": "scram-sha-256", "log_statement": "none",
		"listen_addresses": "*", "port": "5432", "data_directory": "/data", "unix_socket_directories": "/run/socket",
		"hba_file": "/etc/postgresql/pg_hba.conf", "ssl_key_file": "/etc/postgresql/server.key", "shared_buffers": "64MB",
	} {
		assert.Equal(t, want, settings[name], name)
	}
	for line := range strings.Lines(read("pg_hba.conf")) {
		if !strings.HasPrefix(line, "#") {
			assert.Contains(t, line, "scram-sha-256", "nobody comes in without a password")
			assert.False(t, strings.HasPrefix(line, "host "), "nor without TLS")
		}
	}
	assert.Equal(t, "pem", read("server.key"))

	f.KeyFile = filepath.Join(t.TempDir(), "missing")
	require.Error(t, f.Write())
}
