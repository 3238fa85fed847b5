package natsserver

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

func testConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	require.NoError(t, err)
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(certificate, key, []string{"127.0.0.1", "localhost"}))
	passwords := make(map[string]string)
	for _, user := range Users() {
		passwords[user] = user + " secret"
	}
	return Config{
		Dir: filepath.Join(dir, "nats"), CAFile: authority.CAFile(), CertFile: certificate, KeyFile: key,
		Passwords: passwords,
		Log:       slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func TestSmoke(t *testing.T) {
	cfg := testConfig(t)
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	nc, err := nats.Connect("", nats.InProcessServer(s.InProcess()), nats.UserInfo(Bridge, cfg.Passwords[Bridge]), nats.CustomInboxPrefix(InboxPrefix(Bridge)))
	require.NoError(t, err)
	nc.Close()
	nc, err = nats.Connect(s.URL(), nats.RootCAs(cfg.CAFile), nats.UserInfo(Bridge, cfg.Passwords[Bridge]))
	require.NoError(t, err)
	nc.Close()
	require.NoError(t, s.Stop(t.Context()))
}
