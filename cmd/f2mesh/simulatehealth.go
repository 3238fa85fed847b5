package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/health"
	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// serveHealth serves the simulator's health until stop is called.
func (c *simulateCommand) serveHealth(ctx context.Context, ready func(context.Context) error, log *slog.Logger) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.HTTP)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP: %w", err)
	}
	services := []health.Service{{Name: local.PartSimulator, Ready: ready, Gatherer: prometheus.NewRegistry()}}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := web.Serve(ctx, listener, nil, health.Handler(func() []health.Service { return services }), log); err != nil {
			log.Error("serving health stopped", "error", err)
		}
	}()
	return func() { cancel(); <-done }, nil
}
