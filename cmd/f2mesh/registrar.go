package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/registrar/server"
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

// registry is the registrar's core for a command, or for the start of a mesh, and
// the pool that it works with.
type registry struct {
	*registrar.Registrar
	pool   *database.Pool
	issuer identity.Issuer
}

func (r *registry) close() { r.pool.Close() }

// openRegistry opens the registry of the mesh on the state directory. Nothing is
// asked of PostgreSQL yet.
func openRegistry(ctx context.Context, st mesh.State, dsn string, issuer identity.Issuer, secrets secret.Source, log *slog.Logger) (*registry, error) {
	servers, err := identity.OpenAuthority(st.Path("pki"))
	if err != nil {
		return nil, err
	}
	gate, err := mosquitto.OpenGate(st.Path("mosquitto"))
	if err != nil {
		return nil, err
	}
	store := secret.NewStore(secret.Chain{secrets}, slog.New(slog.DiscardHandler))
	pool, err := database.Open(ctx, dsn,
		secret.Credential{Store: store, Password: mesh.SecretRegistry})
	if err != nil {
		return nil, fmt.Errorf("opening the registry: %w", err)
	}
	core, err := registrar.New(registrar.Config{
		Devices: st.DevicesDir(), Pool: pool.Pool, Issuer: issuer, ServerCAs: servers.CAFile(), Gate: gate, Log: log,
		Credential: secret.Credential{Store: store, Password: mesh.SecretMQTTRegistrar, User: "registrar"}.Get,
	})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &registry{core, pool, issuer}, nil
}

// admit registers the controllers that are not registered yet, and brings the
// broker's lists to what the registry says.
func (r *registry) admit(ctx context.Context, origin registrar.Origin, controllers []fleet.Controller) error {
	requests := make([]registrar.Request, len(controllers))
	for i, c := range controllers {
		requests[i] = registrar.Request{MAC: c.MAC, SerialNumber: c.SerialNumber}
	}
	results, err := r.Register(ctx, origin, requests...)
	if err != nil {
		return err
	}
	for i, result := range results {
		if result.Err != nil {
			return fmt.Errorf("registering %s: %w", requests[i].MAC.Dashed(), result.Err)
		}
	}
	return nil
}

// due are the controllers whose certificate should be renewed and can be here.
func (r *registry) due(ctx context.Context) ([]topic.MAC, error) {
	devices, err := r.List(ctx)
	var macs []topic.MAC
	for i := range devices {
		if d := &devices[i]; d.Status == registrar.Active && !d.OwnKey && d.Due(time.Now()) {
			macs = append(macs, d.MAC)
		}
	}
	return macs, err
}
