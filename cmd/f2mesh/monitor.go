package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/operate/health"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/stream"
	monitor "github.com/f2mesh/f2mesh/services/health"
)

type healthCommand struct {
	serviceFlags
	Config monitor.Config `embed:""`
}

// Run runs the health service until it is stopped. Its own metrics are where
// F2MESH_HTTP says, like every service's.
func (c *healthCommand) Run(ctx context.Context, log *slog.Logger) error {
	return c.serve(ctx, "health", newHealth(c.Config, http.NotFoundHandler()), log)
}

func newHealth(cfg monitor.Config, inner http.Handler) build {
	return func(h *host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (runner, error) {
		password := func(ctx context.Context) (string, error) {
			v, err := h.secrets.Get(ctx, credential.HealthAPI)
			return v.Reveal(), err
		}
		return monitor.New(cfg, password, inner, streams.JetStream(), reg, log)
	}
}

// healthConfig is that of the part of a local mesh.
func (m *mesh) healthConfig() monitor.Config {
	cfg := m.cfg.Health
	cfg.CertFile, cfg.KeyFile = m.serverPair()
	cfg.CAs = m.authority.CAFile()
	if m.ports().HTTP == 0 {
		// The service listens where it is told to.
		if free, err := port.Pick(m.cfg.Public, 0); err == nil {
			m.set(func() { m.cfg.Ports.HTTP = free })
		}
	}
	cfg.Listen = m.public(m.ports().HTTP)
	return cfg
}

// allMetrics serves the metrics of all services of this process, and its profiles
// where only this machine reaches them.
func (m *mesh) allMetrics() http.Handler {
	mux := health.Handler(m.running)
	if ip := net.ParseIP(m.cfg.Public); ip != nil && ip.IsLoopback() {
		health.AddProfiles(mux)
	}
	return mux
}
