package main

import (
	"context"
	"log/slog"

	trimmer "github.com/f2mesh/f2mesh/services/keeper"
	"github.com/f2mesh/f2mesh/services/registrar"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/decoder"
	"github.com/f2mesh/f2mesh/services/writer"
)

type bridgeCommand struct {
	serviceFlags
	Config bridge.Config `embed:""`
}

// Run runs the bridge until it is stopped.
func (c *bridgeCommand) Run(ctx context.Context, log *slog.Logger) error {
	return c.serve(ctx, "bridge", version, newBridge(c.Config), log)
}

type decoderCommand struct {
	serviceFlags
	poolingFlags
	Config decoder.Config `embed:""`
}

// Run runs the decoder until it is stopped.
func (c *decoderCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Config.PooledDSN = c.choose(c.Config.PooledDSN)
	return c.serve(ctx, "decoder", version, newDecoder(c.Config), log)
}

type writerCommand struct {
	serviceFlags
	poolingFlags
	Config writer.Config `embed:""`
}

// Run runs the writer until it is stopped.
func (c *writerCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Config.PooledDSN = c.choose(c.Config.PooledDSN)
	return c.serve(ctx, "writer", version, newWriter(c.Config), log)
}

func newBridge(cfg bridge.Config) build {
	return func(h *host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (runner, error) {
		credential := secret.Credential{Store: h.secrets, Password: secretMQTTPassword, Username: secretMQTTUsername, User: "bridge"}
		return bridge.New(cfg, credential, streams, reg, log)
	}
}

func newDecoder(cfg decoder.Config) build {
	return func(h *host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (runner, error) {
		return decoder.New(cfg, secret.Credential{Store: h.secrets, Password: secretPostgres}, streams, reg, log)
	}
}

func newWriter(cfg writer.Config) build {
	return func(h *host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (runner, error) {
		return writer.New(cfg, secret.Credential{Store: h.secrets, Password: secretTimescale}, streams, reg, log)
	}
}

type keeperCommand struct {
	serviceFlags
	Config trimmer.Config `embed:""`
}

// Run runs the keeper until it is stopped.
func (c *keeperCommand) Run(ctx context.Context, log *slog.Logger) error {
	return c.serve(ctx, "keeper", version, newTrimmer(c.Config), log)
}

func newTrimmer(cfg trimmer.Config) build {
	return func(_ *host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (runner, error) {
		return trimmer.New(cfg, streams.JetStream(), reg, log)
	}
}

type provisionCommand struct{ provision }

// Run makes what the containers' servers have to have.
func (c *provisionCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Registry = func(ctx context.Context, pool *database.Pool) error { return registrar.Migrate(ctx, pool.Pool) }
	return c.provision.Run(ctx, log)
}
