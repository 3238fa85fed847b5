package main

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

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
	return c.serve(ctx, "bridge", newBridge(c.Config), log)
}

type decoderCommand struct {
	serviceFlags
	poolingFlags
	Config decoder.Config `embed:""`
}

// Run runs the decoder until it is stopped.
func (c *decoderCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Config.PooledDSN = c.choose(c.Config.PooledDSN)
	return c.serve(ctx, "decoder", newDecoder(c.Config), log)
}

type writerCommand struct {
	serviceFlags
	poolingFlags
	Config writer.Config `embed:""`
}

// Run runs the writer until it is stopped.
func (c *writerCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Config.PooledDSN = c.choose(c.Config.PooledDSN)
	return c.serve(ctx, "writer", newWriter(c.Config), log)
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
