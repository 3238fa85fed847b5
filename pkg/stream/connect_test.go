package stream

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/server/port"
)

func TestConnectWaitsForTheServer(t *testing.T) {
	t.Parallel()
	cfg := natsservertest.Config(t)
	var err error
	cfg.Port, err = port.Pick("127.0.0.1", 0)
	require.NoError(t, err)
	url := "tls://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.Port))
	nc := connect(t, Config{URL: url, CAFile: cfg.CAFile}, natsserver.Bridge,
		secrettest.Credential(natsserver.Bridge, natsservertest.Password(natsserver.Bridge)), new(journal))
	impatient, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	require.ErrorIs(t, WaitConnected(impatient, nc), context.DeadlineExceeded)

	natsservertest.Start(t, cfg)
	patient, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, WaitConnected(patient, nc))
	_, err = nc.TLSConnectionState()
	require.NoError(t, err)
}

// A password that is rotated at the server first is wrong for a while. The
// control shows that this ends a connection for good unless it is set otherwise.
func TestConnectOutlivesAWrongPassword(t *testing.T) {
	t.Parallel()
	const user = natsserver.Bridge
	cfg := natsservertest.Config(t)
	server := natsservertest.Start(t, cfg)
	// The store looks again only when a refusal is reported to it.
	credential, source := secrettest.Changing(t, user, natsservertest.Password(user), time.Hour)
	nc := connect(t, Config{URL: server.URL(), CAFile: cfg.CAFile}, user, credential, new(journal))
	require.NoError(t, WaitConnected(t.Context(), nc))
	control, err := nats.Connect(server.URL(), nats.RootCAs(cfg.CAFile), nats.UserInfo(user, natsservertest.Password(user)),
		nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(control.Close)

	natsservertest.Stop(t, server)
	cfg.Port, cfg.Passwords[user] = server.Port(), "rotated"
	natsservertest.Start(t, cfg)
	require.Eventually(t, control.IsClosed, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool { return source.Asked() > 2 }, patience, 10*time.Millisecond)
	impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, WaitConnected(impatient, nc), nats.ErrAuthorization, "the error names the cause")

	source.Set(user, "rotated")
	patient, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, WaitConnected(patient, nc))
}

func TestConnectRefusesABadCAFile(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(bad, []byte("no certificate"), 0o600))
	for _, file := range []string{bad, bad + ".missing"} {
		_, err := Connect(Config{URL: "tls://127.0.0.1:1", CAFile: file}, natsserver.Bridge, secret.Login{}, slog.New(slog.DiscardHandler))
		assert.ErrorContains(t, err, bad)
	}
}
