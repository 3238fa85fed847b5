// Package service runs a service: its connection to NATS, its secrets, what it reports. The
// service has a process of its own, or shares one with a local mesh.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/web"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Flags are the flags that the services share.
type Flags struct {
	stream.Config
	mesh.SecretFlags
	SecretsDir string `help:"Directory of secret files, tried before the environment." env:"F2MESH_SECRETS_DIR" default:"/run/secrets" type:"path"`
	HTTP       string `help:"Address for /livez, /readyz and /metrics. Empty: disabled. Other hosts need the secret metrics_password." env:"F2MESH_HTTP" default:"" name:"http"`
}

// Runner is what the services have in common.
type Runner interface {
	Run(ctx context.Context) error
	Ready(ctx context.Context) error
}

// Build makes one service.
type Build func(h *Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (Runner, error)

// Run runs one service until ctx ends. It hands the service to running once it
// is made, and calls ready when it first is.
func (h *Host) Run(ctx context.Context, name string, build Build, running func(probe.Service), ready func()) error {
	log := h.Log.With("service", name)
	var arriving arrivals
	cfg := h.Nats
	if cfg.InProcess != nil {
		cfg.InProcess = arriving.of(cfg.InProcess)
	}
	nc, err := stream.Connect(cfg, name, mesh.NatsCredential(h.Secrets, name), log)
	if err != nil {
		return err
	}
	defer nc.Close()
	streams, err := stream.NewClient(nc, natsfiles.Files, log)
	if err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(h.Secrets)
	service, err := build(h, streams, reg, log)
	if err != nil {
		return err
	}
	seen := probe.Service{
		Name: name, Version: semanticVersion(h.Version), Description: "f2mesh " + name,
		Ready: service.Ready, Gatherer: reg, Secrets: h.Secrets.Status,
	}
	if a, ok := service.(interface{ Alarms() alarm.Listing }); ok {
		seen.Alarms = a.Alarms
	}
	running(seen)
	group, ctx := errgroup.WithContext(ctx)
	mesh.NatsCredential(h.Secrets, name).Notify(func() { h.reconnect(ctx, streams, log) })
	group.Go(func() error { return h.Secrets.Run(ctx) })
	group.Go(func() error { return h.watchDowngrades(ctx, name, nc) })
	group.Go(func() error { return announce(ctx, nc, &arriving, seen, ready) })
	group.Go(func() error { return service.Run(ctx) })
	return group.Wait()
}

// reconnect moves the NATS connection to a changed credential.
func (h *Host) reconnect(ctx context.Context, streams *stream.Client, log *slog.Logger) {
	started := time.Now()
	if err := streams.Reconnect(ctx); err != nil && ctx.Err() == nil {
		log.Warn("nats credential changed, the server does not let the service in yet", "error", err)
		return
	}
	log.Info("nats credential changed", "took", time.Since(started).Round(time.Millisecond).String())
}

// announce answers `nats micro` while the service runs, and calls ready when it
// first is.
func announce(ctx context.Context, nc *nats.Conn, arriving *arrivals, s probe.Service, ready func()) error {
	if err := stream.WaitConnected(ctx, nc); err != nil {
		return nil
	}
	release := arriving.hold()
	announced, err := probe.Announce(nc, s)
	release()
	if err != nil {
		return err
	}
	defer func() { _ = announced.Stop() }()
	for s.Ready(ctx) != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	ready()
	<-ctx.Done()
	return nil
}

// Serve is a service as a process of its own.
func (f *Flags) Serve(ctx context.Context, name, version string, build Build, log *slog.Logger) error {
	secrets, done, err := f.Store(name, secret.Files(f.SecretsDir), log)
	if err != nil {
		return err
	}
	defer done()
	h := &Host{Nats: f.Config, Secrets: secrets, Version: version, Log: log}
	group, ctx := errgroup.WithContext(ctx)
	process := prometheus.NewRegistry()
	process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	services := []probe.Service{{Name: "process", Ready: func(context.Context) error { return nil }, Gatherer: process}}
	running := func(s probe.Service) {
		services = append(services, s)
		if f.HTTP == "" {
			return
		}
		group.Go(func() error {
			listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.HTTP)
			if err != nil {
				return fmt.Errorf("listening for HTTP: %w", err)
			}
			handler := f.metricsPassword(log).GuardStrangers(probe.Handler(func() []probe.Service { return services }))
			return web.Serve(ctx, listener, nil, handler, log)
		})
	}
	group.Go(func() error {
		if err := h.Run(ctx, name, build, running, func() { log.Info("ready", "service", name) }); err != nil {
			return err
		}
		return errStopped // ends the listener too
	})
	if err := group.Wait(); !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

// metricsPassword is what somebody who is not in the service's own container has to know.
// It is a secret file or a variable: Vault has what services log in with.
func (f *Flags) metricsPassword(log *slog.Logger) web.Password {
	chain := secret.Chain{secret.Files(f.SecretsDir), secret.Environment("F2MESH_")}
	return web.Password{Secret: credential.Metrics, Log: log, Get: func(ctx context.Context) (string, error) {
		v, err := chain.Lookup(ctx, credential.Metrics)
		return v.Reveal(), err
	}}
}

var errStopped = errors.New("stopped")

// semantic is what `nats micro` takes for a version.
var semantic = regexp.MustCompile(`^\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$`) //nolint:gochecknoglobals // a constant

// semanticVersion is version in the form that `nats micro` insists on. The build
// stamps what git describes: v1.2.3, v1.2.3-4-g0123abc, another tag, or in a clone
// without tags the commit alone. What is in no such form stands behind a plus.
func semanticVersion(version string) string {
	if bare := strings.TrimPrefix(version, "v"); semantic.MatchString(bare) {
		return bare
	}
	return "0.0.0+" + strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, version)
}

// ServeHealth serves /livez, /readyz and /metrics of a process that is no service of the
// mesh, until stop is called.
func ServeHealth(ctx context.Context, address, name string, ready func(context.Context) error, log *slog.Logger) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP: %w", err)
	}
	services := []probe.Service{{Name: name, Ready: ready, Gatherer: prometheus.NewRegistry()}}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := web.Serve(ctx, listener, nil, probe.Handler(func() []probe.Service { return services }), log); err != nil {
			log.Error("serving health stopped", "error", err)
		}
	}()
	return func() { cancel(); <-done }, nil
}
