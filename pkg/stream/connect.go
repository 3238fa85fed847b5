// Package stream is the mesh's way to JetStream: connecting as a service,
// creating the streams and consumers from the files in nats/, and storing
// messages durably in atomic batches. What the messages mean is not its
// business.
package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Config says how a service reaches NATS.
type Config struct {
	URL    string `help:"NATS server, or those of a cluster, separated by commas." env:"NATS_URL" default:"tls://127.0.0.1:4222" name:"nats-url"`
	CAFile string `help:"CA certificates to verify the server with (PEM)." env:"F2MESH_CA" name:"nats-ca" type:"path"`
	// InProcess connects to an embedded server without a socket.
	InProcess nats.InProcessConnProvider `kong:"-"`
}

// reconnectWait is the least time between two attempts to connect.
const reconnectWait = 250 * time.Millisecond

// pingInterval is how often a server of a cluster is asked whether it is still there. One that
// does not answer twice is left for another: after 6 s, and not after 6 minutes, the default.
const pingInterval = 2 * time.Second

// Connect returns a connection of the given user, at once: if the server is
// away it goes on trying for ever. Each connect and reconnect asks credential,
// whose user may be another than the given one, such as its alternate in a
// rotation. Replies arrive on _INBOX_<user>. A refusal is reported to credential; a
// change of it is for Client.Reconnect.
func Connect(cfg Config, user string, credential secret.Login, log *slog.Logger) (*nats.Conn, error) {
	login := &login{credential: credential, log: log}
	options := []nats.Option{
		nats.Name(user),
		nats.UserInfoHandler(login.pair),
		nats.CustomInboxPrefix("_INBOX_" + user),
		// Two refused logins in a row close a connection for good by default:
		// a rotation in progress must not (design 6).
		nats.IgnoreAuthErrorAbort(),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(100*time.Millisecond, 500*time.Millisecond),
		// What cannot be sent now must fail now: its sender keeps it.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("nats connection lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("nats connected", "server", nc.ConnectedServerName()) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { login.failed(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("nats error", "error", err)
			login.failed(err)
		}),
	}
	if strings.Contains(cfg.URL, ",") {
		options = append(options, nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2))
	}
	if cfg.InProcess != nil {
		options = append(options, nats.InProcessServer(cfg.InProcess))
	} else if cfg.CAFile != "" {
		pool, err := identity.CertPool(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		options = append(options, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}))
	}
	nc, err := nats.Connect(cfg.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w", cfg.URL, err)
	}
	return nc, nil
}

// login is what a connection logs in with.
type login struct {
	credential secret.Login
	log        *slog.Logger
	missing    bool // is logged already; nats.go asks from one goroutine at a time
}

// pair is nats.UserInfoCB.
func (l *login) pair() (user, password string) {
	user, password, err := l.credential.Get(context.Background())
	if err != nil && !l.missing {
		l.log.Error("no password for NATS", "error", err)
	}
	l.missing = err != nil
	return user, password
}

// failed has the credential looked up again if the server refused it.
func (l *login) failed(err error) {
	for _, refusal := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, refusal) {
			l.credential.Refused()
			return
		}
	}
}

// WaitConnected blocks until nc is connected or ctx ends.
func WaitConnected(ctx context.Context, nc *nats.Conn) error {
	for !nc.IsConnected() {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), nc.LastError())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
