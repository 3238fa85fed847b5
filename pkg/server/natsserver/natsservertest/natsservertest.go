// Package natsservertest gives tests a real NATS server of their own.
package natsservertest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
)

// Password is that of a user of Config.
func Password(user string) string { return user + " password" }

// Config is a server in a temporary folder, with passwords for all users.
func Config(tb testing.TB) natsserver.Config {
	tb.Helper()
	dir := tb.TempDir()
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	require.NoError(tb, err)
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(tb, authority.IssueServer(certificate, key, []string{"127.0.0.1"}))
	passwords := make(map[string]string)
	for _, user := range natsserver.Users() {
		passwords[user] = Password(user)
	}
	return natsserver.Config{
		Dir: filepath.Join(dir, "nats"), CAFile: authority.CAFile(), CertFile: certificate, KeyFile: key,
		Passwords: passwords, Log: slog.New(slog.DiscardHandler),
	}
}

// Start starts a server, which Stop stops, or else the test's end.
func Start(tb testing.TB, cfg natsserver.Config) *natsserver.Server {
	tb.Helper()
	s, err := natsserver.Start(tb.Context(), cfg)
	require.NoError(tb, err)
	tb.Cleanup(func() { Stop(tb, s) })
	return s
}

// Stop stops a server. It may be called again.
func Stop(tb testing.TB, s *natsserver.Server) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	require.NoError(tb, s.Stop(ctx))
}

// Close closes a connection and returns when nothing of it runs any more. It
// may be called again.
func Close(nc *nats.Conn) {
	if nc.IsClosed() {
		return
	}
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	nc.Close()
	<-closed
}

// Leftovers are the goroutines that nats-server 2.15.2 itself leaves behind when
// it is shut down at a busy moment, for goleak to overlook: the store of a stream
// that is sourced or in the middle of an atomic batch, and a stream that was just
// about to source another.
func Leftovers() []goleak.Option {
	const server = "github.com/nats-io/nats-server/v2/server"
	return []goleak.Option{
		goleak.IgnoreTopFunction(server + ".(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction(server + ".(*msgBlock).flushLoop"),
		goleak.IgnoreTopFunction(server + ".(*stream).trySetupSourceConsumer.func3"),
		goleak.IgnoreTopFunction(server + "/ats.Register.func1"),
	}
}
