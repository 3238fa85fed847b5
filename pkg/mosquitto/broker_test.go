package mosquitto

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/identity"
)

// testConfig is a broker in a temporary folder with an authority of its own.
func testConfig(t *testing.T) (Config, *identity.Authority) {
	t.Helper()
	dir := accounttest.TempDir(t)
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	require.NoError(t, err)
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(certificate, key, []string{"127.0.0.1", "localhost"}))
	return Config{
		Dir: filepath.Join(dir, "mosquitto"), CAFile: authority.CAFile(), CertFile: certificate, KeyFile: key,
		Users: map[string]string{"bridge": "bridge secret", "operator": "operator secret"},
		Log:   slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, authority
}

func TestSmoke(t *testing.T) {
	cfg, _ := testConfig(t)
	b, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, b.Stop(t.Context()))
}
