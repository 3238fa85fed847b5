package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/health"
	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// serveHealth serves the simulator's health until stop is called: it is ready
// while the broker acknowledges.
func (c *simulateCommand) serveHealth(ctx context.Context, log *slog.Logger) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.HTTP)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP: %w", err)
	}
	ready, registry := c.watchAcknowledged(), prometheus.NewRegistry()
	services := []health.Service{{Name: local.PartSimulator, Ready: ready, Gatherer: registry}}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := web.Serve(ctx, listener, nil, health.Handler(func() []health.Service { return services }), log); err != nil {
			log.Error("health is not served any more", "error", err)
		}
	}()
	return func() { cancel(); <-done }, nil
}

// watchAcknowledged answers whether the last acknowledgement is recent.
func (c *simulateCommand) watchAcknowledged() func(context.Context) error {
	var last atomic.Int64
	tell := c.Config.OnAcknowledged
	c.Config.OnAcknowledged = func(topic string, body []byte) {
		last.Store(time.Now().UnixNano())
		tell(topic, body)
	}
	patience := max(3*c.Config.Interval, 10*time.Second)
	return func(context.Context) error {
		if time.Since(time.Unix(0, last.Load())) > patience {
			return errors.New("the broker acknowledges nothing")
		}
		return nil
	}
}
