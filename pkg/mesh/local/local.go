// Package local runs a mesh on this machine, without containers: for `f2mesh up`, and for a
// restore.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// New makes what is missing in the state directory: secrets, certificates,
// the demo fleet's bundles. It starts nothing.
func New(st mesh.State, cfg Config, log *slog.Logger) (*Parts, error) {
	if mesh.Exists(st.Path(RestoringFile)) {
		return nil, ErrRestoring
	}
	cfg.Public = cmp.Or(cfg.Public, cfg.Host)
	m := &Parts{
		Supervisor: supervisor.New(log), Cfg: cfg, State: st, Log: log,
		running: map[string]probe.Service{}, stuck: make(chan struct{}),
	}
	var err error
	if m.Secrets, err = mesh.OpenSecrets(&cfg.Secrets.VaultFlags, st, log); err != nil {
		return nil, err
	}
	m.Secrets.Downgrade = true
	if err := m.Secrets.Ensure(context.Background()); err != nil {
		return nil, err
	}
	if err := m.prepareCertificates(); err != nil {
		return nil, err
	}
	if m.Issuer, err = cfg.Issuer.Open(m.Authority, cfg.Secrets.Config, secret.Value{}, log); err != nil {
		return nil, err
	}
	if err := m.addNATS(); err != nil {
		return nil, err
	}
	m.Add(PartPostgres, m.runPostgres)
	if cfg.Pooling {
		m.Add(PartPgBouncer, m.runPgBouncer)
	}
	m.Add(PartMosquitto, m.runMosquitto)
	for _, s := range cfg.Services {
		m.Add(s.Name, m.runService(s))
	}
	return m, nil
}

func (m *Parts) prepareCertificates() (err error) {
	if m.Authority, err = identity.OpenAuthority(m.State.Path("pki")); err != nil {
		return err
	}
	if err := identity.MoveRootKey(m.State.Path("pki"), m.State.Path(mesh.RootFolder)); err != nil {
		return err
	}
	cert, key := m.ServerPair()
	for _, dir := range []string{filepath.Dir(cert), m.State.DevicesDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the certificates' directories: %w", err)
		}
	}
	return m.Authority.IssueServer(cert, key, []string{"localhost", "127.0.0.1", "::1", m.Cfg.Public})
}

func (m *Parts) runPostgres(ctx context.Context, ready func()) error {
	user, password, err := mesh.LogIn(ctx, m.Secrets, mesh.SecretSuperuser)
	if err != nil {
		return err
	}
	cluster, err := m.startPostgres(ctx, user, password)
	if err != nil {
		return err
	}
	if err := m.fill(ctx); err != nil {
		return errors.Join(err, stopped(ctx, cluster.Stop))
	}
	ready()
	var writing sync.WaitGroup
	defer writing.Wait()
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	writing.Go(func() { m.checkpoint(bounded) })
	return whileRunning(ctx, cluster.Done(), cluster.Err, cluster.Stop)
}

// checkpoint has the databases that fill made written to their files. Until then a
// recovery after a crash would have to do it, which takes seconds.
func (m *Parts) checkpoint(ctx context.Context) {
	conn, err := m.Superuser(ctx, mesh.DatabaseAny)
	if err == nil {
		_, err = conn.Exec(ctx, "CHECKPOINT")
		_ = conn.Close(context.WithoutCancel(ctx))
	}
	if err != nil && ctx.Err() == nil {
		m.Log.Warn("PostgreSQL did not write its data to the files; its recovery after a crash takes longer", "error", err)
	}
}

// fill makes what the databases have, and lets the fleet in.
func (m *Parts) fill(ctx context.Context) error {
	if err := m.Provision(ctx); err != nil || m.Cfg.Admit == nil {
		return err
	}
	return m.Cfg.Admit(ctx, m)
}

func (m *Parts) startPostgres(ctx context.Context, user, password string) (*postgres.Cluster, error) {
	cert, key := m.ServerPair()
	cluster, err := postgres.Start(ctx, postgres.Config{
		Dir: m.State.Path("postgres"), Host: m.Cfg.Host, Port: m.Cfg.Ports.Postgres,
		CertFile: cert, KeyFile: key, CAFile: m.Authority.CAFile(), Superuser: user, SuperuserPassword: password,
		Settings: mesh.PostgresSettings(), Preload: []string{"timescaledb"}, Log: m.Log.With("service", PartPostgres),
	})
	if err != nil {
		return nil, err
	}
	m.set(func() { m.Cluster, m.Cfg.Ports.Postgres = cluster, cluster.Port() })
	return cluster, nil
}

func (m *Parts) runMosquitto(ctx context.Context, ready func()) error {
	cert, key := m.ServerPair()
	users, err := mesh.LogIns(ctx, m.Secrets, credential.MQTT)
	if err != nil {
		return err
	}
	bridgeUser, _, err := mesh.LogIn(ctx, m.Secrets, mesh.SecretMQTTPassword)
	if err != nil {
		return err
	}
	cfg := mosquitto.Config{
		Dir: m.State.Path("mosquitto"), Host: m.Cfg.Host, Public: m.Cfg.Public, Origins: m.Cfg.Origins,
		Port: m.Cfg.Ports.MQTT, TLSPort: m.Cfg.Ports.MQTTTLS, PeoplePort: m.Cfg.Ports.People, WebSocketPort: m.Cfg.Ports.WebSocket,
		CertFile: cert, KeyFile: key,
		Users: users, Session: mosquitto.Session{User: bridgeUser, ClientID: m.Cfg.ClientID, Filter: m.Cfg.Filter}, Autosave: m.Cfg.Autosave, Retained: m.Cfg.Retained,
		Denied: m.Cfg.Denied, Log: m.Log.With("service", PartMosquitto),
	}
	broker, err := mosquitto.Start(ctx, cfg)
	if err != nil {
		return err
	}
	m.set(func() {
		m.Mqtt = broker
		m.Cfg.Ports.MQTT, m.Cfg.Ports.MQTTTLS = broker.Port(), broker.TLSPort()
		m.Cfg.Ports.People, m.Cfg.Ports.WebSocket = broker.PeoplePort(), broker.WebSocketPort()
	})
	ready()
	return whileRunning(ctx, broker.Done(), broker.Err, broker.Stop)
}

// runService is a part that runs one of the services in this process.
func (m *Parts) runService(s Part) supervisor.Run {
	name := s.Name
	return func(ctx context.Context, ready func()) error {
		secrets, done, err := m.Cfg.Secrets.Store(name, m.SecretFiles(), m.Log)
		if err != nil {
			return err
		}
		defer done()
		h := &service.Host{Nats: m.natsClient(), Secrets: secrets, Version: m.Cfg.Version, Log: m.Log}
		running := func(s probe.Service) { m.set(func() { m.running[name] = s }) }
		defer m.set(func() { delete(m.running, name) })
		err = h.Run(ctx, name, s.Build(m), running, ready)
		if errors.Is(err, stream.ErrConsumerGone) { // a consumer was deleted by mistake: the next start finds it
			err = errors.Join(err, m.setUpStreams(ctx))
		}
		return err
	}
}

// Remove deletes what the servers left outside the state directory.
func (m *Parts) Remove() error {
	var problems error
	for _, server := range []string{"postgres", "pgbouncer", "mosquitto"} {
		problems = errors.Join(problems, account.Remove(m.State.Path(server)))
	}
	return problems
}
