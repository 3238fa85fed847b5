package mosquitto

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// kicksAtOnce bounds the connections that Kick opens together.
const kicksAtOnce = 16

// Kick ends the sessions of controllers, with what is queued for them, by taking
// their client ids over as a user of the services' listener. A controller comes
// back at once unless the lists in force keep it out. Without a broker there is
// nothing to do.
func (g *Gate) Kick(ctx context.Context, user, password string, macs []topic.MAC) error {
	broker, runs := running(g.folder)
	if !runs {
		return nil
	}
	services, _, err := g.addresses(broker)
	if err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(kicksAtOnce)
	for _, mac := range macs {
		group.Go(func() error {
			if err := connect(ctx, services, client{id: mac.Dashed(), user: user, password: password}); err != nil {
				return fmt.Errorf("ending the session of %s: %w", mac.Dashed(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// ErrShut is returned by Handshake when the broker refuses the certificate.
var ErrShut = errors.New("the broker refuses the certificate")

// Handshake tries a controller's certificate on the broker that runs: nil means
// that it would be let in. It opens no MQTT session, so that the controller's own
// goes on. Without a broker it answers ErrNotRunning.
func (g *Gate) Handshake(ctx context.Context, certificate *tls.Certificate) error {
	broker, runs := running(g.folder)
	if !runs {
		return ErrNotRunning
	}
	_, devices, err := g.addresses(broker)
	if err != nil {
		return err
	}
	config, err := g.clientTLS(certificate)
	if err != nil {
		return fmt.Errorf("trying a certificate: %w", err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", devices)
	if err != nil {
		return fmt.Errorf("trying a certificate: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if err := tls.Client(conn, config).HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("trying a certificate: %w", ctx.Err())
		}
		return fmt.Errorf("%w: %w", ErrShut, err)
	}
	return nil
}

// clientTLS knows the broker by its very certificate. With TLS 1.3 a client learns
// of its refusal only after the handshake.
func (g *Gate) clientTLS(certificate *tls.Certificate) (*tls.Config, error) {
	text, err := os.ReadFile(filepath.Join(g.folder, serverCertFile))
	if err != nil {
		return nil, err
	}
	own, err := parseCertificates(text)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
		VerifyConnection: func(s tls.ConnectionState) error {
			if !s.PeerCertificates[0].Equal(own[0]) {
				return x509.CertificateInvalidError{Cert: s.PeerCertificates[0], Reason: x509.NotAuthorizedToSign, Detail: "not the broker's"}
			}
			return nil
		},
	}, nil
}
