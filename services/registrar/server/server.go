// Package server runs the registrar as a service: it answers EST, keeps the
// broker's revocation list young, brings the audit trail to its stream, and raises
// alarms. The operations themselves are package registrar's, which the command line
// uses without it.
package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/registrar/est"
	"github.com/f2mesh/f2mesh/services/registrar/watch"
)

// Logins are the credentials of the service.
type Logins struct {
	Registry secret.Login // of PostgreSQL: owns the registry, reads claiming codes
	MQTT     secret.Login // reads the broker's log, ends sessions
}

// Server is one registrar service; run it once.
type Server struct {
	cfg      Config
	issuer   identity.Issuer
	trust    *trust
	logins   Logins
	streams  *stream.Client
	reg      prometheus.Registerer
	log      *slog.Logger
	watcher  *watch.Watcher
	registry atomic.Pointer[database.Pool] // set once the tables are there
	metadata atomic.Pointer[database.Pool]
	core     *registrar.Registrar
}

// New returns a service whose certificates issuer signs; its metrics are in reg.
func New(cfg Config, issuer identity.Issuer, logins Logins, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("registrar: %w", err)
	}
	if cfg.Listen != "" && (cfg.CertFile == "" || cfg.KeyFile == "") {
		return nil, errors.New("registrar: EST needs est-cert and est-key; --est= leaves it out")
	}
	s := &Server{cfg: cfg, issuer: issuer, trust: &trust{issuer: issuer, log: log}, logins: logins, streams: streams, reg: reg, log: log}
	var err error
	if s.watcher, err = watch.New(cfg.Watch, fleet{s}, s.own, logins.MQTT, streams.JetStream(), reg, log); err != nil {
		return nil, fmt.Errorf("registrar: %w", err)
	}
	return s, nil
}

// Observe takes a line of the broker's log; see watch.Watcher.
func (s *Server) Observe(line string) { s.watcher.Observe(line) }

// Alarms lists those of this service that are raised now.
func (s *Server) Alarms() alarm.Listing { return s.watcher.Alarms() }

// Run serves until ctx ends, and then lets enrolments that are under way finish.
func (s *Server) Run(ctx context.Context) error {
	registry, err := database.Open(ctx, s.cfg.RegistryDSN, s.logins.Registry)
	if err != nil {
		return fmt.Errorf("registrar: registry-dsn: %w", err)
	}
	defer registry.Close()
	metadata, err := database.Open(ctx, s.cfg.MetadataDSN, s.logins.Registry)
	if err != nil {
		return fmt.Errorf("registrar: claims-dsn: %w", err)
	}
	defer metadata.Close()
	if s.core, err = s.open(registry); err != nil {
		return err
	}
	if err := s.untilAnswered(ctx, func(ctx context.Context) error { return registrar.Migrate(ctx, registry.Pool) }); err != nil {
		return err
	}
	trail := registrar.NewTrail(registry.Pool)
	group, ctx := errgroup.WithContext(ctx)
	if s.cfg.Listen != "" {
		if err := s.enrol(ctx, group, trail, registry, metadata); err != nil {
			return err
		}
	}
	s.metadata.Store(metadata)
	s.registry.Store(registry)
	group.Go(func() error { return trail.Ship(ctx, s.streams, s.log) })
	group.Go(func() error { return trail.RecordOutcomes(ctx, s.streams, s.log) })
	group.Go(func() error { s.refresh(ctx); return nil })
	group.Go(func() error { return s.watcher.Run(ctx) })
	return group.Wait()
}

// open makes the registrar's core.
func (s *Server) open(registry *database.Pool) (*registrar.Registrar, error) {
	gate, err := mosquitto.OpenGate(s.cfg.Broker)
	if err != nil {
		return nil, err
	}
	return registrar.New(registrar.Config{
		Devices: s.cfg.Devices, Pool: registry.Pool, Issuer: s.issuer, ServerCAs: s.cfg.ServerCAs, Gate: gate,
		Credential: s.logins.MQTT.Get, Log: s.log,
	})
}

// enrol serves EST.
func (s *Server) enrol(ctx context.Context, group *errgroup.Group, trail *registrar.Trail, registry, metadata *database.Pool) error {
	server, err := est.New(est.Config{
		Authority: s.core, Standing: s.core, Recorder: trail,
		Codes: est.NewMetadata(metadata.Pool, s.cfg.MetadataSchema), Claims: est.NewRegistry(registry.Pool, s.cfg.Limits),
		Trusted: func() ([]*x509.Certificate, error) { return s.trust.get(ctx) },
		Limits:  s.cfg.Limits, Log: s.log,
	}, s.reg)
	if err != nil {
		return fmt.Errorf("registrar: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening for EST: %w", err)
	}
	group.Go(func() error { return server.Serve(ctx, listener, s.cfg.CertFile, s.cfg.KeyFile) })
	return nil
}

// own are the mesh's own certificates, whose end is watched.
func (s *Server) own() ([]*x509.Certificate, error) {
	all, err := s.trust.get(context.Background())
	if err != nil || s.cfg.CertFile == "" {
		return all, err
	}
	server, err := readCertificate(s.cfg.CertFile)
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(all), server), nil
}

// Ready proves that registry, claiming codes, JetStream and the broker's log answer.
func (s *Server) Ready(ctx context.Context) error {
	registry, metadata := s.registry.Load(), s.metadata.Load()
	if registry == nil {
		return errors.New("preparing the registry")
	}
	if _, err := registry.Exec(ctx, "SELECT FROM device LIMIT 0"); err != nil {
		return fmt.Errorf("asking the registry: %w", err)
	}
	if _, _, err := est.NewMetadata(metadata.Pool, s.cfg.MetadataSchema).Lookup(ctx, ""); err != nil && s.cfg.Listen != "" {
		return err
	}
	if err := s.streams.Ready(ctx, stream.Audit); err != nil {
		return err
	}
	return s.watcher.Ready(ctx)
}

// refresh keeps the revocation list young until ctx ends. It finishes what others
// have left, too, so it comes often.
func (s *Server) refresh(ctx context.Context) {
	for {
		wait := s.cfg.Refresh
		next, err := s.core.Refresh(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("revocation list not refreshed", "error", err)
			wait = min(wait, retryRefresh)
			next, err = s.core.NextUpdate() // an alarm needs to know what is in force
		}
		if err == nil && !next.IsZero() {
			s.watcher.RevocationList(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// retryRefresh is when a refresh that failed is tried again.
const retryRefresh = time.Minute

// untilAnswered repeats what until it succeeds or ctx ends: a database may start
// after us.
func (s *Server) untilAnswered(ctx context.Context, what func(context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		err := what(bounded)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopping is no error
		}
		s.log.Warn("waiting for the registry", "error", err, "retry_in", wait.String())
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}
