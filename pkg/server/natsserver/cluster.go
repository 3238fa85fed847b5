package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

// Member says how a server reaches the others of its cluster. They share the passwords and
// the accounts, and JetStream keeps each stream on as many of them as it has replicas.
type Member struct {
	// Name is this server's, and no other's. JetStream knows the server by it.
	Name string
	// Listen is where the others reach it, as host:port.
	Listen string
	// Routes are the addresses of all servers; its own does no harm.
	Routes []string
	// CertFile and KeyFile are the certificate of a route, at both its ends (identity's
	// IssuePeer); CAFile is what it must chain to.
	CertFile, KeyFile, CAFile string
}

// block is the block cluster {} of local.conf. Controllers' certificates are of the same CA,
// and a route may do everything: routes take no key but the one of CertFile.
func (c *Member) block() (string, error) {
	pin, err := identity.Pin(c.CertFile)
	if err != nil {
		return "", fmt.Errorf("reading the route's certificate: %w", err)
	}
	routes := make([]string, len(c.Routes))
	for i, address := range c.Routes {
		routes[i] = fmt.Sprintf("%q", "tls://"+address)
	}
	return fmt.Sprintf(`cluster {
  name: "f2mesh"
  listen: %q
  no_advertise: true
  tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 5, pinned_certs: [ %q ] }
  routes: [ %s ]
}
`, c.Listen, c.CertFile, c.KeyFile, c.CAFile, pin, strings.Join(routes, ", ")), nil
}

// WriteFiles writes the configuration of a server that Serve runs, in another process. Port
// is required.
func (c Config) WriteFiles() error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("writing nats-server's files: %w", err)
	}
	c = c.withDefaults()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("writing nats-server's files: %w", err)
	}
	_, err := c.writeFiles(c.Port)
	return err
}

// serveStop bounds how long Serve waits for the server to stop.
const serveStop = 20 * time.Second

// Serve runs a server from the files in its folder until ctx ends or a stream cannot be
// written.
func Serve(ctx context.Context, dir string, log *slog.Logger) error {
	s, err := locked(dir, func() (*Server, error) {
		s := new(Server)
		return s, s.run(ctx, filepath.Join(dir, "nats-server.conf"), log)
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-s.Failed():
		err = errors.New("a stream could not be written")
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), serveStop)
	defer cancel()
	return errors.Join(err, s.Stop(bounded))
}
