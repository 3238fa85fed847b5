package main

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/stream"
	monitor "github.com/f2mesh/f2mesh/services/health"
)

type healthCommand struct {
	service.Flags
	Config monitor.Config `embed:""`
}

// Run runs the health service until it is stopped. Its own metrics are where
// F2MESH_HTTP says, like every service's.
func (c *healthCommand) Run(ctx context.Context, log *slog.Logger) error {
	return c.Serve(ctx, "health", version, newHealth(c.Config, http.NotFoundHandler()), log)
}

func newHealth(cfg monitor.Config, inner http.Handler) service.Build {
	return func(h *service.Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (service.Runner, error) {
		password := func(ctx context.Context) (string, error) {
			v, err := h.Secrets.Get(ctx, credential.HealthAPI)
			return v.Reveal(), err
		}
		return monitor.New(cfg, password, inner, streams.JetStream(), reg, log)
	}
}
