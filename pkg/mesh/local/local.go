// Package local runs a mesh on this machine, without containers: for `f2mesh up`, and for a
// restore.
package local

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

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
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
	PartNATS      = "nats"
	PartPostgres  = "postgres"
	PartPgBouncer = "pgbouncer"
	PartMosquitto = "mosquitto"
	PartKeeper    = "keeper"
	PartBridge    = "bridge"
	PartDecoder   = "decoder"
	PartWriter    = "writer"
	PartRegistrar = "registrar"
	PartHealth    = "health"
	PartSimulator = "simulator"
)

// stopTimeout bounds the stop of one server.
const stopTimeout = 30 * time.Second

// Config says how a mesh runs on this machine.
type Config struct {
	Version     string   // of this program
	Host        string   // listen address of all that speaks without TLS, of NATS and the databases
	Public      string   // listen address of all that controllers and people reach from elsewhere; "": Host
	Origins     []string // see mosquitto.People
	Retained    bool     // lets controllers publish retained messages
	Ports       mesh.Ports
	Controllers int // of the demo fleet
	Autosave    mosquitto.Autosave
	ClientID    string            // the bridge's at the broker
	Denied      func(line string) // is told each line of the broker's log about a denied publish; nil: the broker writes none
	Sizes       stream.Sizes      // of the streams
	Issuer      mesh.IssuerFlags
	Decoder     json.RawMessage // the decoder's settings, for run.json
	Secrets     mesh.SecretFlags
	Pooling     bool // through PgBouncer to PostgreSQL
	// Services run in this process, in this order, behind the servers.
	Services []Part
	// Registry makes the registrar's tables, as their owner.
	Registry func(context.Context, *database.Pool) error
	// Admit is called once the databases are there and before the broker starts.
	Admit func(ctx context.Context, m *Mesh) error
}

// Part is a service of the mesh's own process.
type Part struct {
	Name  string
	Build func(m *Mesh) service.Build
}

// Mesh is all parts of a mesh on one machine, in one process but for the broker, the
// database and its pooler. The supervisor starts and stops them.
type Mesh struct {
	*supervisor.Supervisor
	Cfg       Config
	State     mesh.State
	Log       *slog.Logger
	Authority *identity.Authority
	Issuer    identity.Issuer // of devices
	Secrets   *mesh.Secrets   // where the servers' logins are from

	Mu      sync.Mutex // guards the fields below
	Nats    *natsserver.Server
	Cluster *postgres.Cluster
	Pooler  *pgbouncer.Pooler
	Mqtt    *mosquitto.Broker
	running map[string]probe.Service
}

// New makes what is missing in the state directory: secrets, certificates,
// the demo fleet's bundles. It starts nothing.
func New(st mesh.State, cfg Config, log *slog.Logger) (*Mesh, error) {
	if mesh.Exists(st.Path(RestoringFile)) {
		return nil, ErrRestoring
	}
	cfg.Public = cmp.Or(cfg.Public, cfg.Host)
	m := &Mesh{
		Supervisor: supervisor.New(log), Cfg: cfg, State: st, Log: log,
		running: map[string]probe.Service{},
	}
	var err error
	if m.Secrets, err = mesh.OpenSecrets(&cfg.Secrets.VaultFlags, st, log); err != nil {
		return nil, err
	}
	if err := m.Secrets.Ensure(context.Background()); err != nil {
		return nil, err
	}
	if err := m.prepareCertificates(); err != nil {
		return nil, err
	}
	if m.Issuer, err = cfg.Issuer.Open(m.Authority, cfg.Secrets.Config, secret.Value{}, log); err != nil {
		return nil, err
	}
	m.Add(PartNATS, m.runNATS)
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

func (m *Mesh) prepareCertificates() (err error) {
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

// ServerPair is the certificate of the mesh's servers and its key.
func (m *Mesh) ServerPair() (certFile, keyFile string) {
	return m.State.Path("pki", "server", "server.crt"), m.State.Path("pki", "server", "server.key")
}

func (m *Mesh) runNATS(ctx context.Context, ready func()) error {
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
func (m *Mesh) startNATS(ctx context.Context, filling bool) (*natsserver.Server, error) {
	cert, key := m.ServerPair()
	users, err := mesh.LogIns(ctx, m.Secrets, credential.NATS)
	if err != nil {
		return nil, err
	}
	server, err := natsserver.Start(ctx, natsserver.Config{
		Dir: m.State.Path("nats"), Host: m.Cfg.Host, Port: m.Cfg.Ports.NATS,
		CertFile: cert, KeyFile: key, CAFile: m.Authority.CAFile(), Passwords: users,
		Filling: filling, Log: m.Log.With("service", PartNATS),
	})
	if err != nil {
		return nil, err
	}
	m.set(func() { m.Nats, m.Cfg.Ports.NATS = server, server.Port() })
	return server, nil
}

// setUpStreams makes the streams and consumers, before a service looks for them, with
// the operator's rights.
func (m *Mesh) setUpStreams(ctx context.Context) error {
	sizes := m.Cfg.Sizes
	sizes.Free = func() (uint64, error) { return doctor.DiskFree(m.State.Path("nats")) }
	to := mesh.OperatorStreams{Config: stream.Config{URL: "nats://in-process", InProcess: m}, Secrets: m.Secrets.Chain, Log: m.Log}
	changes, err := to.SetUp(ctx, sizes, false)
	for _, change := range changes {
		m.Log.Info("set up", "change", change)
	}
	return err
}

func (m *Mesh) runPostgres(ctx context.Context, ready func()) error {
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
	return whileRunning(ctx, cluster.Done(), cluster.Err, cluster.Stop)
}

// fill makes what the databases have, and lets the fleet in.
func (m *Mesh) fill(ctx context.Context) error {
	if err := m.Provision(ctx); err != nil || m.Cfg.Admit == nil {
		return err
	}
	return m.Cfg.Admit(ctx, m)
}

func (m *Mesh) startPostgres(ctx context.Context, user, password string) (*postgres.Cluster, error) {
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

func (m *Mesh) runMosquitto(ctx context.Context, ready func()) error {
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
		Users: users, Session: mosquitto.Session{User: bridgeUser, ClientID: m.Cfg.ClientID}, Autosave: m.Cfg.Autosave, Retained: m.Cfg.Retained,
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
func (m *Mesh) runService(s Part) supervisor.Run {
	name := s.Name
	return func(ctx context.Context, ready func()) error {
		secrets, done, err := m.Cfg.Secrets.Store(name, m.SecretFiles(), m.Log)
		if err != nil {
			return err
		}
		defer done()
		h := &service.Host{Nats: stream.Config{URL: "nats://in-process", InProcess: m}, Secrets: secrets, Version: m.Cfg.Version, Log: m.Log}
		running := func(s probe.Service) { m.set(func() { m.running[name] = s }) }
		defer m.set(func() { delete(m.running, name) })
		err = h.Run(ctx, name, s.Build(m), running, ready)
		if errors.Is(err, stream.ErrConsumerGone) { // a consumer was deleted by mistake: the next start finds it
			err = errors.Join(err, m.setUpStreams(ctx))
		}
		return err
	}
}

// InProcessConn connects to the NATS server that runs now.
func (m *Mesh) InProcessConn() (net.Conn, error) {
	m.Mu.Lock()
	server := m.Nats
	m.Mu.Unlock()
	if server == nil {
		return nil, errors.New("the NATS server does not run")
	}
	return server.InProcess().InProcessConn()
}

// Services lists the services that run now.
func (m *Mesh) Services() []probe.Service {
	m.Mu.Lock()
	defer m.Mu.Unlock()
	services := make([]probe.Service, 0, len(m.running))
	for _, s := range m.running {
		services = append(services, s)
	}
	return services
}

// Address is the address of what listens on loopback.
func (m *Mesh) Address(port int) string { return net.JoinHostPort(m.Cfg.Host, strconv.Itoa(port)) }

// Public is the address of what controllers and people reach.
func (m *Mesh) Public(port int) string {
	return net.JoinHostPort(m.Cfg.Public, strconv.Itoa(port))
}

// Choose takes a free port for a service that listens itself, unless it has one.
func (m *Mesh) Choose(number *int) int {
	m.Mu.Lock()
	defer m.Mu.Unlock()
	if *number == 0 {
		if free, err := port.Pick(m.Cfg.Public, 0); err == nil {
			*number = free
		}
	}
	return *number
}

// Describe is run.json of the mesh that runs now.
func (m *Mesh) Describe() mesh.Description {
	return mesh.Description{
		PID: os.Getpid(), Started: time.Now().UTC(), Ready: true, Host: m.Cfg.Host, Public: m.Cfg.Public, Ports: m.Ports(),
		Controllers: m.Cfg.Controllers, Simulating: slices.Contains(m.Names(), PartSimulator), CAFile: m.Authority.CAFile(), Context: m.State.NATSContext(),
		Issuer: m.Cfg.Issuer, Decoder: m.Cfg.Decoder,
	}
}

func (m *Mesh) set(change func()) {
	m.Mu.Lock()
	defer m.Mu.Unlock()
	change()
}

// Ports are where the parts listen now.
func (m *Mesh) Ports() mesh.Ports {
	m.Mu.Lock()
	defer m.Mu.Unlock()
	return m.Cfg.Ports
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

// Remove deletes what the servers left outside the state directory.
func (m *Mesh) Remove() error {
	var problems error
	for _, server := range []string{"postgres", "pgbouncer", "mosquitto"} {
		problems = errors.Join(problems, account.Remove(m.State.Path(server)))
	}
	return problems
}

// SecretFiles are the secret files of the mesh.
func (m *Mesh) SecretFiles() secret.Files { return secret.Files(m.State.SecretsDir()) }
