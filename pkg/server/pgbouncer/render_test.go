package pgbouncer

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	conf "github.com/f2mesh/f2mesh/pgbouncer"
)

func TestRender(t *testing.T) {
	t.Parallel()
	cfg := Config{
		Host: "127.0.0.1", User: User, ServerHost: "127.0.0.2", ServerPort: 5433,
		Settings: map[string]string{"default_pool_size": "3", "tcp_keepalive": "1"},
	}
	text, err := cfg.render("/somewhere", 6433)
	require.NoError(t, err)
	for _, line := range []string{
		"metadata = host=127.0.0.2 port=5433 auth_user=f2mesh_pgbouncer", "telemetry = host=127.0.0.2 port=5433 auth_user=f2mesh_pgbouncer",
		"listen_addr = 127.0.0.1", "listen_port = 6433", "default_pool_size = 3", "tcp_keepalive = 1",
		"auth_file = /somewhere/userlist.txt", "client_tls_key_file = /somewhere/server.key", "server_tls_ca_file = /somewhere/ca.crt",
		"max_client_conn = 100", "pool_mode = transaction",
	} {
		assert.Equal(t, 1, strings.Count(text, "\n"+line+"\n"), line)
	}
	settings := strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ';' }), "")
	assert.NotContains(t, settings[strings.Index(settings, "[pgbouncer]"):], "default_pool_size = 20", "a setting is not given twice")
	assert.Contains(t, conf.Conf, "\ndefault_pool_size = 20\n", "the control")
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"no folder":      func(c *Config) { c.Dir = "" },
		"no logger":      func(c *Config) { c.Log = nil },
		"no server":      func(c *Config) { c.ServerPort = 0 },
		"no certificate": func(c *Config) { c.CertFile = "" },
		"no CA":          func(c *Config) { c.CAFile = "" },
		"no password":    func(c *Config) { c.Password = "" },
	} {
		cfg := Config{
			Dir: "x", ServerHost: "x", ServerPort: 1, CertFile: "x", KeyFile: "x", CAFile: "x", Password: "x", Log: slog.New(slog.DiscardHandler),
		}
		require.NoError(t, cfg.validate())
		spoil(&cfg)
		require.Error(t, cfg.validate(), name)
	}
}

func TestParseLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]struct {
		level slog.Level
		text  string
	}{
		"2026-11-24 10:00:00.123 UTC [42] LOG listening on 127.0.0.1:6432":                  {slog.LevelInfo, "listening on 127.0.0.1:6432"},
		"2026-11-24 10:00:00.123 UTC [42] WARNING C-0x1: pooler error: no such user":        {slog.LevelWarn, "C-0x1: pooler error: no such user"},
		"2026-11-24 10:00:00.123 UTC [42] ERROR C-0x1: x password authentication failed":    {slog.LevelWarn, "C-0x1: x password authentication failed"},
		"2026-11-24 10:00:00.123 UTC [42] FATAL @src/main.c:1 in function f(): cannot load": {slog.LevelError, "@src/main.c:1 in function f(): cannot load"},
		"something else": {slog.LevelInfo, "something else"},
	} {
		got := parseLine(line)
		assert.Equal(t, want.level, got.Level, line)
		assert.Equal(t, want.text, got.Text, line)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	read := func(name string) string {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
	require.NoError(t, ConfigFiles{Dir: dir, User: User, Password: `a"b`}.Write())
	assert.Equal(t, conf.Conf, read(confFile), "the folder is the image's")
	assert.Equal(t, `"f2mesh_pgbouncer" "a""b"`+"\n", read(userlistFile))
	require.NoError(t, ConfigFiles{Dir: dir, User: User + "_b", Password: "c"}.Write())
	assert.Contains(t, read(confFile), "\nadmin_users = f2mesh_pgbouncer, f2mesh_pgbouncer_b\n", "always both")
	assert.Contains(t, read(confFile), "host=timescaledb port=5432 auth_user=f2mesh_pgbouncer_b\n")
	require.Error(t, ConfigFiles{Dir: dir, User: User}.Write(), "no password")
	require.Error(t, ConfigFiles{Dir: filepath.Join(dir, "nothing"), User: User, Password: "c"}.Write())
}
