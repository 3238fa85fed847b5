package main

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/console"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/f2mesh/f2mesh/services/writer"
)

type bridgeCommand struct {
	service.Flags
	Config bridge.Config `embed:""`
}

// Run runs the bridge until it is stopped.
func (c *bridgeCommand) Run(ctx context.Context, log *slog.Logger) error {
	return c.Serve(ctx, "bridge", version, newBridge(c.Config), log)
}

type decoderCommand struct {
	service.Flags
	poolingFlags
	Config decoder.Config `embed:""`
}

// Run runs the decoder until it is stopped.
func (c *decoderCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Config.PooledDSN = c.choose(c.Config.PooledDSN)
	return c.Serve(ctx, "decoder", version, newDecoder(c.Config), log)
}

type writerCommand struct {
	service.Flags
	poolingFlags
	Config writer.Config `embed:""`
}

// Run runs the writer until it is stopped.
func (c *writerCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Config.PooledDSN = c.choose(c.Config.PooledDSN)
	return c.Serve(ctx, "writer", version, newWriter(c.Config), log)
}

func newBridge(cfg bridge.Config) service.Build {
	return func(h *service.Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (service.Runner, error) {
		credential := secret.Login{Store: h.Secrets, Password: mesh.SecretMQTTPassword, Username: mesh.SecretMQTTUsername, User: "bridge"}
		return bridge.New(cfg, credential, streams, reg, log)
	}
}

func newDecoder(cfg decoder.Config) service.Build {
	return func(h *service.Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (service.Runner, error) {
		return decoder.New(cfg, secret.Login{Store: h.Secrets, Password: mesh.SecretPostgres}, streams, reg, log)
	}
}

func newWriter(cfg writer.Config) service.Build {
	return func(h *service.Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (service.Runner, error) {
		return writer.New(cfg, secret.Login{Store: h.Secrets, Password: mesh.SecretTimescale}, streams, reg, log)
	}
}

type provisionCommand struct{ containers.Provision }

// Run makes what the containers' servers have to have.
func (c *provisionCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Registry = migrateRegistry
	return c.Provision.Run(ctx, log)
}

type healthCommand struct {
	service.Flags
	Config  monitor.Config `embed:""`
	Console console.Config `embed:"" prefix:"console-"`
}

// Run runs the health service until it is stopped. Its own metrics are where
// F2MESH_HTTP says, like every service's.
func (c *healthCommand) Run(ctx context.Context, log *slog.Logger) error {
	return c.Serve(ctx, "health", version, newHealth(c.Config, c.Console, http.NotFoundHandler()), log)
}

func newHealth(cfg monitor.Config, look console.Config, inner http.Handler) service.Build {
	return func(h *service.Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (service.Runner, error) {
		password := func(ctx context.Context) (string, error) {
			v, err := h.Secrets.Get(ctx, credential.HealthAPI)
			return v.Reveal(), err
		}
		decoding := decoder.Config{Schema: look.Schema, Zone: look.Zone}
		pages, err := console.Open(look, h, func(metadata *pgxpool.Pool) (replay.MetadataDecoder, error) {
			return decoder.NewRedecoder(decoding, metadata)
		}, log)
		if err != nil {
			return nil, err
		}
		return monitor.New(cfg, password, inner, pages, streams.JetStream(), reg, log)
	}
}

// poolingFlags choose between the two ways to PostgreSQL.
type poolingFlags struct {
	Pooling bool `help:"Connect to PostgreSQL through PgBouncer, except where a session is needed." env:"USE_CONNECTION_POOLING" default:"true" negatable:"" name:"connection-pooling"`
}

// choose answers the DSN of the pooler, or none if it is not to be used.
func (f poolingFlags) choose(pooledDSN string) string {
	if !f.Pooling {
		return ""
	}
	return pooledDSN
}

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
			Registry: secret.Login{Store: h.Secrets, Password: mesh.SecretRegistry},
			MQTT:     secret.Login{Store: h.Secrets, Password: mesh.SecretMQTTRegistrar, User: "registrar"},
		}, streams, reg, log)
	}
}

// migrateRegistry makes the registrar's tables, as their owner.
func migrateRegistry(ctx context.Context, pool *database.Pool) error {
	return registrar.Migrate(ctx, pool.Pool)
}
