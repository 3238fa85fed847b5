package keeper

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Process is the keeper as a process of its own.
type Process struct {
	service.Flags
	Config Config `embed:""`
}

// Run runs the keeper until it is stopped.
func (p *Process) Run(ctx context.Context, version service.Release, log *slog.Logger) error {
	return p.Serve(ctx, "keeper", string(version), Build(p.Config), log)
}

// Build makes a keeper of a process.
func Build(cfg Config) service.Build {
	return func(_ *service.Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (service.Runner, error) {
		return New(cfg, streams.JetStream(), reg, log)
	}
}
