package postgres

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/identity"
)

func testConfig(t *testing.T) Config {
	t.Helper()
	dir := accounttest.TempDir(t)
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	require.NoError(t, err)
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(certificate, key, []string{"127.0.0.1", "localhost"}))
	return Config{
		Dir: filepath.Join(dir, "postgres"), CAFile: authority.CAFile(), CertFile: certificate, KeyFile: key,
		SuperuserPassword: "superuser secret",
		Log:               slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func TestSmoke(t *testing.T) {
	c, err := Start(t.Context(), testConfig(t))
	require.NoError(t, err)
	require.NoError(t, c.Stop(t.Context()))
}
