package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/operate/health"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	trimmer "github.com/f2mesh/f2mesh/services/keeper"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/f2mesh/f2mesh/services/writer"
)

// Names of the parts of a mesh, in the order in which they start.
const (
	partNATS      = "nats"
	partPostgres  = "postgres"
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

// meshConfig says how a local mesh runs.
type meshConfig struct {
	Host        string   // of all that speaks without TLS, of NATS and the databases
	Public      string   // of all that controllers and people reach from elsewhere; "": Host
	Origins     []string // see mosquitto.People
	Retained    bool     // lets controllers publish retained messages
	Ports       ports
	Controllers int
	Autosave    mosquitto.Autosave
	WatchTopics bool         // has the broker tell of each denied publish
	Sizes       stream.Sizes // of the streams
	Keeper      trimmer.Config
	Bridge      bridge.Config
	Decoder     decoder.Config
	Writer      writer.Config
	Registrar   server.Config
	Health      monitor.Config
	Issuer      issuerFlags
	Secrets     secretFlags
	Pooling     bool // through PgBouncer to PostgreSQL
}

// mesh is all parts on one machine, in one process but for the broker, the database
// and its pooler. The supervisor starts and stops them.
type mesh struct {
	*supervisor.Supervisor
	cfg       meshConfig
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
	observe  func(line string) // the registrar's, of the broker's log; nil: it does not run
}

// newMesh makes what is missing in the state directory: secrets, certificates,
// the demo fleet's bundles. It starts nothing.
func newMesh(st state, cfg meshConfig, log *slog.Logger) (*mesh, error) {
	if exists(st.path(restoringFile)) {
		return nil, errRestoring
	}
	cfg.Public = cmp.Or(cfg.Public, cfg.Host)
	m := &mesh{
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
	m.Add(partKeeper, m.service(partKeeper, func() build { return newTrimmer(m.cfg.Keeper) }))
	m.Add(partBridge, m.service(partBridge, func() build { return newBridge(m.bridgeConfig()) }))
	m.Add(partDecoder, m.service(partDecoder, func() build { return newDecoder(m.decoderConfig()) }))
	m.Add(partWriter, m.service(partWriter, func() build { return newWriter(m.writerConfig()) }))
	m.Add(partRegistrar, m.service(partRegistrar, func() build { return m.observing(newRegistrar(m.registrarConfig(), m.issuer)) }))
	m.Add(partHealth, m.service(partHealth, func() build { return newHealth(m.healthConfig(), m.allMetrics()) }))
	return m, nil
}

func (m *mesh) prepareCertificates() (err error) {
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

func (m *mesh) serverPair() (certFile, keyFile string) {
	return m.state.path("pki", "server", "server.crt"), m.state.path("pki", "server", "server.key")
}

func (m *mesh) runNATS(ctx context.Context, ready func()) error {
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
func (m *mesh) startNATS(ctx context.Context, filling bool) (*natsserver.Server, error) {
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
func (m *mesh) setUpStreams(ctx context.Context) error {
	sizes := m.cfg.Sizes
	sizes.Free = func() (uint64, error) { return doctor.DiskFree(m.state.path("nats")) }
	to := operatorStreams{config: stream.Config{URL: "nats://in-process", InProcess: m}, secrets: m.secrets.Chain, log: m.log}
	changes, err := to.setUp(ctx, sizes, false)
	for _, change := range changes {
		m.log.Info("set up", "change", change)
	}
	return err
}

func (m *mesh) runPostgres(ctx context.Context, ready func()) error {
	user, password, err := logIn(ctx, m.secrets, secretSuperuser)
	if err != nil {
		return err
	}
	cluster, err := m.startPostgres(ctx, user, password)
	if err != nil {
		return err
	}
	if err := errors.Join(m.provision(ctx), m.admit(ctx)); err != nil {
		return errors.Join(err, stopped(ctx, cluster.Stop))
	}
	ready()
	return whileRunning(ctx, cluster.Done(), cluster.Err, cluster.Stop)
}

func (m *mesh) startPostgres(ctx context.Context, user, password string) (*postgres.Cluster, error) {
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

// admit registers the demo fleet: the broker takes who may connect from the registry.
func (m *mesh) admit(ctx context.Context) error {
	registry, err := openRegistry(ctx, m.state, m.cfg.Host, m.ports().Postgres, m.issuer, m.secrets, m.log.With("service", partRegistrar))
	if err != nil {
		return err
	}
	defer registry.close()
	if err := registrar.Migrate(ctx, registry.pool.Pool); err != nil {
		return err
	}
	if err := m.sealAudit(ctx); err != nil {
		return err
	}
	return registry.admit(ctx, registrar.Origin{Actor: "up"}, fleet.Demo(m.cfg.Controllers))
}

func (m *mesh) sealAudit(ctx context.Context) error {
	conn, err := m.superuser(ctx, databaseRegistry)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return sealAudit(ctx, conn)
}

func (m *mesh) runMosquitto(ctx context.Context, ready func()) error {
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
		Users: users, Session: mosquitto.Session{User: bridgeUser, ClientID: m.cfg.Bridge.ClientID}, Autosave: m.cfg.Autosave, Retained: m.cfg.Retained, Log: m.log.With("service", partMosquitto),
	}
	if m.cfg.WatchTopics {
		cfg.Denied = m.denied
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
func (m *mesh) service(name string, build func() build) supervisor.Run {
	return func(ctx context.Context, ready func()) error {
		secrets, done, err := m.cfg.Secrets.store(name, m.secretFiles(), m.log)
		if err != nil {
			return err
		}
		defer done()
		h := &host{nats: stream.Config{URL: "nats://in-process", InProcess: m}, secrets: secrets, log: m.log}
		running := func(s health.Service) { m.set(func() { m.services[name] = s }) }
		defer m.set(func() { delete(m.services, name) })
		err = h.run(ctx, name, build(), running, ready)
		if errors.Is(err, stream.ErrConsumerGone) { // a consumer was deleted by mistake: the next start finds it
			err = errors.Join(err, m.setUpStreams(ctx))
		}
		return err
	}
}

// InProcessConn connects to the NATS server that runs now.
func (m *mesh) InProcessConn() (net.Conn, error) {
	m.mu.Lock()
	server := m.nats
	m.mu.Unlock()
	if server == nil {
		return nil, errors.New("the NATS server does not run")
	}
	return server.InProcess().InProcessConn()
}

// running lists the services that run now.
func (m *mesh) running() []health.Service {
	m.mu.Lock()
	defer m.mu.Unlock()
	services := make([]health.Service, 0, len(m.services))
	for _, s := range m.services {
		services = append(services, s)
	}
	return services
}

func (m *mesh) address(port int) string { return net.JoinHostPort(m.cfg.Host, strconv.Itoa(port)) }

// public is the address of what controllers and people reach.
func (m *mesh) public(port int) string { return net.JoinHostPort(m.cfg.Public, strconv.Itoa(port)) }

func (m *mesh) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *mesh) ports() ports {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg.Ports
}

func (m *mesh) bridgeConfig() bridge.Config {
	cfg := m.cfg.Bridge
	cfg.URL = "tcp://" + m.address(m.ports().MQTT)
	return cfg
}

func (m *mesh) decoderConfig() decoder.Config {
	cfg := m.cfg.Decoder
	cfg.DSN, cfg.PooledDSN = m.dsn(roleDecoder, databaseMetadata), m.pooledDSN(roleDecoder, databaseMetadata)
	cfg.Schema = metadataSchema
	return cfg
}

func (m *mesh) writerConfig() writer.Config {
	cfg := m.cfg.Writer
	cfg.DSN, cfg.PooledDSN = m.dsn(roleWriter, databaseTelemetry), m.pooledDSN(roleWriter, databaseTelemetry)
	return cfg
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
func (m *mesh) remove() error {
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

func (m *mesh) secretFiles() secret.Files { return secret.Files(m.state.secrets()) }
