package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/operate/health"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Names of the parts of a mesh, in the order in which they start.
const (
	partNATS      = "nats"
	partPostgres  = "postgres"
	partPgBouncer = "pgbouncer"
	partMosquitto = "mosquitto"
	partKeeper    = "keeper"
	partBridge    = "bridge"
	partDecoder   = "decoder"
	partWriter    = "writer"
	partRegistrar = "registrar"
	partHealth    = "health"
	partSimulator = "simulator"
)

// stopTimeout bounds the stop of one server.
const stopTimeout = 30 * time.Second

// localConfig says how a mesh runs on this machine.
type localConfig struct {
	Version     string   // of this program
	Host        string   // listen address of all that speaks without TLS, of NATS and the databases
	Public      string   // listen address of all that controllers and people reach from elsewhere; "": Host
	Origins     []string // see mosquitto.People
	Retained    bool     // lets controllers publish retained messages
	Ports       ports
	Controllers int // of the demo fleet
	Autosave    mosquitto.Autosave
	ClientID    string            // the bridge's at the broker
	Denied      func(line string) // is told each line of the broker's log about a denied publish; nil: the broker writes none
	Sizes       stream.Sizes      // of the streams
	Issuer      issuerFlags
	Decoder     json.RawMessage // the decoder's settings, for run.json
	Secrets     secretFlags
	Pooling     bool // through PgBouncer to PostgreSQL
	// Services run in this process, in this order, behind the servers.
	Services []localService
	// Admit is called once the databases are there and before the broker starts.
	Admit func(ctx context.Context, m *localMesh) error
}

// localService is a service of the mesh's own process.
type localService struct {
	Name  string
	Build func(m *localMesh) build
}

// localMesh is all parts of a mesh on one machine, in one process but for the broker, the
// database and its pooler. The supervisor starts and stops them.
type localMesh struct {
	*supervisor.Supervisor
	cfg       localConfig
	state     state
	log       *slog.Logger
	authority *identity.Authority
	issuer    identity.Issuer // of devices
	secrets   *keeper         // where the servers' logins are from

	mu       sync.Mutex // guards the fields below
	nats     *natsserver.Server
	cluster  *postgres.Cluster
	pooler   *pgbouncer.Pooler
	mqtt     *mosquitto.Broker
	services map[string]health.Service
}

// newLocal makes what is missing in the state directory: secrets, certificates,
// the demo fleet's bundles. It starts nothing.
func newLocal(st state, cfg localConfig, log *slog.Logger) (*localMesh, error) {
	if exists(st.path(restoringFile)) {
		return nil, errRestoring
	}
	cfg.Public = cmp.Or(cfg.Public, cfg.Host)
	m := &localMesh{
		Supervisor: supervisor.New(log), cfg: cfg, state: st, log: log,
		services: map[string]health.Service{},
	}
	var err error
	if m.secrets, err = newKeeper(&cfg.Secrets.vaultFlags, st, log); err != nil {
		return nil, err
	}
	if err := m.secrets.ensure(context.Background()); err != nil {
		return nil, err
	}
	if err := m.prepareCertificates(); err != nil {
		return nil, err
	}
	if m.issuer, err = cfg.Issuer.open(m.authority, cfg.Secrets.Config, secret.Value{}, log); err != nil {
		return nil, err
	}
	m.Add(partNATS, m.runNATS)
	m.Add(partPostgres, m.runPostgres)
	if cfg.Pooling {
		m.Add(partPgBouncer, m.runPgBouncer)
	}
	m.Add(partMosquitto, m.runMosquitto)
	for _, s := range cfg.Services {
		m.Add(s.Name, m.service(s))
	}
	return m, nil
}

func (m *localMesh) prepareCertificates() (err error) {
	if m.authority, err = identity.OpenAuthority(m.state.path("pki")); err != nil {
		return err
	}
	if err := identity.MoveRootKey(m.state.path("pki"), m.state.path(rootFolder)); err != nil {
		return err
	}
	cert, key := m.serverPair()
	for _, dir := range []string{filepath.Dir(cert), m.state.devices()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the certificates' directories: %w", err)
		}
	}
	return m.authority.IssueServer(cert, key, []string{"localhost", "127.0.0.1", "::1", m.cfg.Public})
}

func (m *localMesh) serverPair() (certFile, keyFile string) {
	return m.state.path("pki", "server", "server.crt"), m.state.path("pki", "server", "server.key")
}

func (m *localMesh) runNATS(ctx context.Context, ready func()) error {
	server, err := m.startNATS(ctx, false)
	if err != nil {
		return err
	}
	if err := m.setUpStreams(ctx); err != nil {
		return errors.Join(err, stopped(ctx, server.Stop))
	}
	ready()
	<-ctx.Done()
	return stopped(ctx, server.Stop)
}

// startNATS starts the server; filling is for a restore (natsserver.Config).
func (m *localMesh) startNATS(ctx context.Context, filling bool) (*natsserver.Server, error) {
	cert, key := m.serverPair()
	users, err := logins(ctx, m.secrets, credential.NATS)
	if err != nil {
		return nil, err
	}
	server, err := natsserver.Start(ctx, natsserver.Config{
		Dir: m.state.path("nats"), Host: m.cfg.Host, Port: m.cfg.Ports.NATS,
		CertFile: cert, KeyFile: key, CAFile: m.authority.CAFile(), Passwords: users,
		Filling: filling, Log: m.log.With("service", partNATS),
	})
	if err != nil {
		return nil, err
	}
	m.set(func() { m.nats, m.cfg.Ports.NATS = server, server.Port() })
	return server, nil
}

// setUpStreams makes the streams and consumers, before a service looks for them, with
// the operator's rights.
func (m *localMesh) setUpStreams(ctx context.Context) error {
	sizes := m.cfg.Sizes
	sizes.Free = func() (uint64, error) { return doctor.DiskFree(m.state.path("nats")) }
	to := operatorStreams{config: stream.Config{URL: "nats://in-process", InProcess: m}, secrets: m.secrets.Chain, log: m.log}
	changes, err := to.setUp(ctx, sizes, false)
	for _, change := range changes {
		m.log.Info("set up", "change", change)
	}
	return err
}

func (m *localMesh) runPostgres(ctx context.Context, ready func()) error {
	user, password, err := logIn(ctx, m.secrets, secretSuperuser)
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
	return whileRunning(ctx, cluster.Done(), cluster.Err, cluster.Stop)
}

// fill makes what the databases have, and lets the fleet in.
func (m *localMesh) fill(ctx context.Context) error {
	if err := m.provision(ctx); err != nil {
		return err
	}
	if m.cfg.Admit != nil {
		if err := m.cfg.Admit(ctx, m); err != nil {
			return err
		}
	}
	conn, err := m.superuser(ctx, databaseRegistry)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return sealAudit(ctx, conn)
}

func (m *localMesh) startPostgres(ctx context.Context, user, password string) (*postgres.Cluster, error) {
	cert, key := m.serverPair()
	cluster, err := postgres.Start(ctx, postgres.Config{
		Dir: m.state.path("postgres"), Host: m.cfg.Host, Port: m.cfg.Ports.Postgres,
		CertFile: cert, KeyFile: key, CAFile: m.authority.CAFile(), Superuser: user, SuperuserPassword: password,
		Settings: postgresSettings(), Preload: []string{"timescaledb"}, Log: m.log.With("service", partPostgres),
	})
	if err != nil {
		return nil, err
	}
	m.set(func() { m.cluster, m.cfg.Ports.Postgres = cluster, cluster.Port() })
	return cluster, nil
}

func (m *localMesh) runMosquitto(ctx context.Context, ready func()) error {
	cert, key := m.serverPair()
	users, err := logins(ctx, m.secrets, credential.MQTT)
	if err != nil {
		return err
	}
	bridgeUser, _, err := logIn(ctx, m.secrets, secretMQTTPassword)
	if err != nil {
		return err
	}
	cfg := mosquitto.Config{
		Dir: m.state.path("mosquitto"), Host: m.cfg.Host, Public: m.cfg.Public, Origins: m.cfg.Origins,
		Port: m.cfg.Ports.MQTT, TLSPort: m.cfg.Ports.MQTTTLS, PeoplePort: m.cfg.Ports.People, WebSocketPort: m.cfg.Ports.WebSocket,
		CertFile: cert, KeyFile: key,
		Users: users, Session: mosquitto.Session{User: bridgeUser, ClientID: m.cfg.ClientID}, Autosave: m.cfg.Autosave, Retained: m.cfg.Retained,
		Denied: m.cfg.Denied, Log: m.log.With("service", partMosquitto),
	}
	broker, err := mosquitto.Start(ctx, cfg)
	if err != nil {
		return err
	}
	m.set(func() {
		m.mqtt = broker
		m.cfg.Ports.MQTT, m.cfg.Ports.MQTTTLS = broker.Port(), broker.TLSPort()
		m.cfg.Ports.People, m.cfg.Ports.WebSocket = broker.PeoplePort(), broker.WebSocketPort()
	})
	ready()
	return whileRunning(ctx, broker.Done(), broker.Err, broker.Stop)
}

// service is a part that runs one of the services in this process.
func (m *localMesh) service(s localService) supervisor.Run {
	name := s.Name
	return func(ctx context.Context, ready func()) error {
		secrets, done, err := m.cfg.Secrets.store(name, m.secretFiles(), m.log)
		if err != nil {
			return err
		}
		defer done()
		h := &host{nats: stream.Config{URL: "nats://in-process", InProcess: m}, secrets: secrets, version: m.cfg.Version, log: m.log}
		running := func(s health.Service) { m.set(func() { m.services[name] = s }) }
		defer m.set(func() { delete(m.services, name) })
		err = h.run(ctx, name, s.Build(m), running, ready)
		if errors.Is(err, stream.ErrConsumerGone) { // a consumer was deleted by mistake: the next start finds it
			err = errors.Join(err, m.setUpStreams(ctx))
		}
		return err
	}
}

// InProcessConn connects to the NATS server that runs now.
func (m *localMesh) InProcessConn() (net.Conn, error) {
	m.mu.Lock()
	server := m.nats
	m.mu.Unlock()
	if server == nil {
		return nil, errors.New("the NATS server does not run")
	}
	return server.InProcess().InProcessConn()
}

// running lists the services that run now.
func (m *localMesh) running() []health.Service {
	m.mu.Lock()
	defer m.mu.Unlock()
	services := make([]health.Service, 0, len(m.services))
	for _, s := range m.services {
		services = append(services, s)
	}
	return services
}

func (m *localMesh) address(port int) string { return net.JoinHostPort(m.cfg.Host, strconv.Itoa(port)) }

// public is the address of what controllers and people reach.
func (m *localMesh) public(port int) string {
	return net.JoinHostPort(m.cfg.Public, strconv.Itoa(port))
}

// choose takes a free port for a service that listens itself, unless it has one.
func (m *localMesh) choose(number *int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if *number == 0 {
		if free, err := port.Pick(m.cfg.Public, 0); err == nil {
			*number = free
		}
	}
	return *number
}

// describe is run.json of the mesh that runs now.
func (m *localMesh) describe() running {
	return running{
		PID: os.Getpid(), Started: time.Now().UTC(), Ready: true, Host: m.cfg.Host, Public: m.cfg.Public, Ports: m.ports(),
		Controllers: m.cfg.Controllers, Simulating: slices.Contains(m.Names(), partSimulator), CAFile: m.authority.CAFile(), Context: m.state.natsContext(),
		Issuer: m.cfg.Issuer, Decoder: m.cfg.Decoder,
	}
}

func (m *localMesh) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *localMesh) ports() ports {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg.Ports
}

// whileRunning waits until ctx ends, and then stops the child; or until the
// child ends by itself, which is an error.
func whileRunning(ctx context.Context, done <-chan struct{}, cause func() error, stop func(context.Context) error) error {
	select {
	case <-done:
		if err := cause(); err != nil {
			return fmt.Errorf("it ended: %w", err)
		}
		return errors.New("the process exited unexpectedly")
	case <-ctx.Done():
		return stopped(ctx, stop)
	}
}

// stopped stops a server although ctx has ended.
func stopped(ctx context.Context, stop func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return stop(bounded)
}

// remove deletes what the servers left outside the state directory.
func (m *localMesh) remove() error {
	var problems error
	for _, server := range []string{"postgres", "pgbouncer", "mosquitto"} {
		problems = errors.Join(problems, account.Remove(m.state.path(server)))
	}
	return problems
}

// postgresSettings are for many small rows on a machine that also does other
// things. None of them is about durability, which has PostgreSQL's defaults.
func postgresSettings() map[string]string {
	return map[string]string{
		"shared_buffers": "512MB", // the indexes' hot pages: 128 MB, the default, are written out and read in again
		"max_wal_size":   "4GB",   // fewer checkpoints, after each of which every page goes to the WAL whole
		// A policy's job of TimescaleDB is a worker; the default of 8 for all of
		// PostgreSQL is too few. Without TimescaleDB its settings mean nothing.
		"max_worker_processes":               "24",
		"timescaledb.max_background_workers": "12",
		"timescaledb.telemetry_level":        "off",
	}
}

func (m *localMesh) secretFiles() secret.Files { return secret.Files(m.state.secrets()) }
