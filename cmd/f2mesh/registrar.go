package main

import (
	"context"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/prometheus/client_golang/prometheus"
)

type registrarCommand struct {
	service.Flags
	mesh.IssuerFlags
	Authority string        `help:"Directory of the certificate authority." env:"REGISTRAR_PKI_DIR" default:"pki" type:"path" name:"pki-dir"`
	Config    server.Config `embed:""`
}

// Run runs the registrar until it is stopped.
func (c *registrarCommand) Run(ctx context.Context, log *slog.Logger) error {
	authority, err := identity.OpenAuthority(c.Authority)
	if err != nil {
		return err
	}
	if c.Config.ServerCAs == "" {
		c.Config.ServerCAs = authority.CAFile()
	}
	issuer, err := c.Open(authority, c.SecretFlags.Config, secret.Value{}, log)
	if err != nil {
		return err
	}
	return c.Serve(ctx, "registrar", version, newRegistrar(c.Config, issuer), log)
}

func newRegistrar(cfg server.Config, issuer identity.Issuer) service.Build {
	return func(h *service.Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (service.Runner, error) {
		return server.New(cfg, issuer, server.Logins{
			Registry: secret.Credential{Store: h.Secrets, Password: mesh.SecretRegistry},
			MQTT:     secret.Credential{Store: h.Secrets, Password: mesh.SecretMQTTRegistrar, User: "registrar"},
		}, streams, reg, log)
	}
}
