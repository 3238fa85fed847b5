package natsserver

import (
	"context"
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/server/port"
)

// testConfig is a server in a temporary folder, with passwords for all users.
func testConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	require.NoError(t, err)
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(certificate, key, []string{"127.0.0.1", "localhost"}))
	passwords := make(map[string]string)
	for _, user := range Users() {
		passwords[user] = user + " password"
	}
	return Config{
		Dir: filepath.Join(dir, "nats"), CAFile: authority.CAFile(), CertFile: certificate, KeyFile: key,
		Passwords: passwords,
		Log:       slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

func startServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { stopServer(t, s) })
	return s
}

func stopServer(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
}

// connect connects over the wire as a service does.
func connect(t *testing.T, s *Server, cfg Config, user string, options ...nats.Option) *nats.Conn {
	t.Helper()
	options = append([]nats.Option{
		nats.RootCAs(cfg.CAFile), nats.UserInfo(user, cfg.Passwords[user]),
		nats.CustomInboxPrefix(InboxPrefix(user)),
	}, options...)
	nc, err := nats.Connect(s.URL(), options...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func TestConnect(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	delete(cfg.Passwords, Writer)
	s := startServer(t, cfg)
	trust, memory := nats.RootCAs(cfg.CAFile), nats.InProcessServer(s.InProcess())
	tests := []struct {
		name    string
		url     string
		options []nats.Option
		refused bool
	}{
		{"by password over TLS", s.URL(), []nats.Option{trust, nats.UserInfo(Bridge, cfg.Passwords[Bridge])}, false},
		{"by password through memory", "", []nats.Option{memory, nats.UserInfo(Bridge, cfg.Passwords[Bridge])}, false},
		{"operator", s.URL(), []nats.Option{trust, nats.UserInfo(Operator, cfg.Passwords[Operator])}, false},
		{"system account", s.URL(), []nats.Option{trust, nats.UserInfo(Sys, cfg.Passwords[Sys])}, false},
		{"anonymous over TLS", s.URL(), []nats.Option{trust}, true},
		{"wrong password through memory", "", []nats.Option{memory, nats.UserInfo(Bridge, "wrong")}, true},
		{"wrong password", s.URL(), []nats.Option{trust, nats.UserInfo(Bridge, "wrong")}, true},
		{"user without a password", s.URL(), []nats.Option{trust, nats.UserInfo(Writer, "")}, true},
		{"unknown user", s.URL(), []nats.Option{trust, nats.UserInfo("nobody", "wrong")}, true},
	}
	for _, test := range tests {
		nc, err := nats.Connect(test.url, test.options...)
		if test.refused {
			require.Error(t, err, test.name)
			continue
		}
		require.NoError(t, err, test.name)
		nc.Close()
	}
}

func TestTLSIsRequiredOnTheWire(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	_, err := nats.Connect(s.URL(), nats.UserInfo(Bridge, cfg.Passwords[Bridge]))
	require.ErrorContains(t, err, "x509", "a client that does not know the CA refuses the server")

	nc := connect(t, s, cfg, Bridge)
	state, err := nc.TLSConnectionState()
	require.NoError(t, err)
	require.NotEmpty(t, state.PeerCertificates)
}

// Monitoring over HTTP asks nobody for a login. What it tells, the user sys is told.
func TestNoMonitor(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	assert.Nil(t, s.server.MonitorAddr())
	reply, err := connect(t, s, cfg, Sys).Request("$SYS.REQ.SERVER.PING.HEALTHZ", nil, 10*time.Second)
	require.NoError(t, err)
	assert.Contains(t, string(reply.Data), `"status":"ok"`)
}

func TestRestartKeepsStreams(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	js, err := jetstream.New(connect(t, s, cfg, Operator))
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), streamConfig(t, "raw"))
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", []byte("kept"))
	require.NoError(t, err)

	cfg.Port = s.Port()
	_, err = Start(t.Context(), cfg)
	require.ErrorContains(t, err, "another server runs on this folder")
	stopServer(t, s)

	cfg.Passwords[Bridge] = "rotated"
	s = startServer(t, cfg)
	assert.Equal(t, cfg.Port, s.Port())
	js, err = jetstream.New(connect(t, s, cfg, Bridge))
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	assert.EqualValues(t, 1, stream.CachedInfo().State.Msgs)
}

// syncs asks a running server whether it brings each message to disk.
func syncs(t *testing.T, s *Server) bool {
	t.Helper()
	answer, err := s.server.Jsz(&server.JSzOptions{Config: true})
	require.NoError(t, err)
	return answer.Config.SyncAlways
}

// What is filled from a backup need not wait for the disk at each message; the next
// start does, and has it all.
func TestFilling(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Filling = true
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	assert.False(t, syncs(t, s))
	js, err := jetstream.New(connect(t, s, cfg, Operator))
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), streamConfig(t, "raw"))
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", []byte("kept"))
	require.NoError(t, err)
	stopServer(t, s)

	cfg.Filling = false
	s = startServer(t, cfg)
	assert.True(t, syncs(t, s))
	js, err = jetstream.New(connect(t, s, cfg, Bridge))
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	assert.EqualValues(t, 1, stream.CachedInfo().State.Msgs)

	require.NoError(t, syncFolder(cfg.Dir))
	require.ErrorIs(t, syncFolder(filepath.Join(cfg.Dir, "nothing")), fs.ErrNotExist)
}

func TestTakenPortIsAnError(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	cfg := testConfig(t)
	cfg.Port = s.Port()
	_, err := Start(t.Context(), cfg)
	require.ErrorIs(t, err, port.ErrTaken)
	cfg.Port = 0
	startServer(t, cfg) // the folder is free again
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"no folder":      func(c *Config) { c.Dir = "" },
		"no logger":      func(c *Config) { c.Log = nil },
		"no certificate": func(c *Config) { c.CertFile = "" },
		"no passwords":   func(c *Config) { c.Passwords = nil },
		"empty password": func(c *Config) { c.Passwords[Bridge] = "" },
		"unknown user":   func(c *Config) { c.Passwords["stranger"] = "x" },
		"missing key":    func(c *Config) { c.KeyFile += ".not" },
	} {
		cfg := testConfig(t)
		spoil(&cfg)
		_, err := Start(t.Context(), cfg)
		require.Error(t, err, name)
	}
}
