package containers

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

// Healthcheck checks servers; an error says that one is not healthy.
type Healthcheck struct {
	URLs       []string      `arg:"" optional:"" name:"url" help:"URLs to check: http(s)://… must return 200; mqtt://USER@HOST:PORT and postgres://USER@HOST/DATABASE must accept the login. Default: /readyz of the service at F2MESH_HTTP."`
	HTTP       string        `help:"Where the service of this container serves HTTP." env:"F2MESH_HTTP" default:":9100" hidden:"" name:"http"`
	CAFile     string        `help:"CA certificates to verify the server with (PEM)." env:"F2MESH_CA" name:"ca" type:"path"`
	Secret     string        `help:"Name of the secret that holds the user's password."`
	SecretsDir string        `help:"Directory of secret files." env:"F2MESH_SECRETS_DIR" default:"/run/secrets" type:"path"`
	Timeout    time.Duration `help:"Timeout." default:"4s"`
}

// Run asks once; its exit status is the answer.
func (c *Healthcheck) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	targets, err := c.targets()
	if err != nil {
		return err
	}
	for _, target := range targets {
		if err := c.ask(ctx, target); err != nil {
			return err
		}
	}
	return nil
}

func (c *Healthcheck) ask(ctx context.Context, target *url.URL) error {
	switch target.Scheme {
	case "http", "https":
		return c.get(ctx, target)
	case "mqtt":
		return c.logIn(ctx, target)
	case "postgres":
		return c.query(ctx, target)
	}
	return fmt.Errorf("a health check of %q is not known: http, https, mqtt or postgres", target.Scheme)
}

func (c *Healthcheck) targets() (all []*url.URL, err error) {
	for _, text := range c.URLs {
		target, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		all = append(all, target)
	}
	if len(all) > 0 {
		return all, nil
	}
	_, port, err := net.SplitHostPort(c.HTTP)
	if err != nil {
		return nil, fmt.Errorf("F2MESH_HTTP: %w", err)
	}
	return []*url.URL{{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", port), Path: "/readyz"}}, nil
}

func (c *Healthcheck) get(ctx context.Context, target *url.URL) error {
	transport := &http.Transport{DisableKeepAlives: true}
	if c.CAFile != "" {
		pool, err := identity.CertPool(c.CAFile)
		if err != nil {
			return err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", target.Redacted(), answer.Status)
	}
	return nil
}

func (c *Healthcheck) logIn(ctx context.Context, target *url.URL) error {
	v, err := secret.Files(c.SecretsDir).Lookup(ctx, c.Secret)
	if err != nil {
		return fmt.Errorf("reading secret %s: %w", c.Secret, err)
	}
	return mosquitto.LogIn(ctx, target.Host, v.Username(target.User.Username()), v.Reveal())
}

func (c *Healthcheck) query(ctx context.Context, target *url.URL) error {
	database := strings.TrimPrefix(target.Path, "/")
	conn, err := mesh.Dial(ctx, target.Host, c.CAFile, database, target.User.Username(), secret.Files(c.SecretsDir), c.Secret)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "SELECT 1")
	return err
}
