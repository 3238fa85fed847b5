package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret"
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
	PartAlarm     = "alarm"
	PartSimulator = "simulator"
)

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
	Filter      string            // what the bridge subscribes to there
	Denied      func(line string) // is told each line of the broker's log about a denied publish; nil: the broker writes none
	Sizes       stream.Sizes      // of the streams
	Issuer      mesh.IssuerFlags
	Decoder     json.RawMessage // the decoder's settings, for run.json
	Secrets     mesh.SecretFlags
	Pooling     bool // through PgBouncer to PostgreSQL
	Nodes       int  // NATS servers, each a process of its own if there are several; 0: as before
	// Unsynced has NATS acknowledge messages before they are on disk: for a negative control.
	Unsynced bool
	// Services run in this process, in this order, behind the servers.
	Services []Part
	// Registry makes the registrar's tables, as their owner.
	Registry func(context.Context, *database.Pool) error
	// Admit is called once the databases are there and before the broker starts.
	Admit func(ctx context.Context, m *Parts) error
}

// Part is a service of the mesh's own process.
type Part struct {
	Name  string
	Build func(m *Parts) service.Build
}

// Parts is all parts of a mesh on one machine, in one process but for the broker, the
// database and its pooler. The supervisor starts and stops them.
type Parts struct {
	*supervisor.Supervisor
	Cfg       Config
	State     mesh.State
	Log       *slog.Logger
	Authority *identity.Authority
	Issuer    identity.Issuer // of devices
	Secrets   *mesh.Secrets   // where the servers' logins are from

	stuck     chan struct{} // closed when a server of this process does not stop
	stuckOnce sync.Once

	Mu      sync.Mutex // guards the fields below
	Nats    *natsserver.Server
	Cluster *postgres.Cluster
	Pooler  *pgbouncer.Pooler
	Mqtt    *mosquitto.Broker
	running map[string]probe.Service
}

// Stuck is closed when a server of this process does not stop. The mesh is whole again only
// in another process.
func (m *Parts) Stuck() <-chan struct{} { return m.stuck }

// ServerPair is the certificate of the mesh's servers and its key.
func (m *Parts) ServerPair() (certFile, keyFile string) {
	return m.State.Path("pki", "server", "server.crt"), m.State.Path("pki", "server", "server.key")
}

// InProcessConn connects to the NATS server that runs now.
func (m *Parts) InProcessConn() (net.Conn, error) {
	m.Mu.Lock()
	server := m.Nats
	m.Mu.Unlock()
	if server == nil {
		return nil, errors.New("the NATS server does not run")
	}
	return server.InProcess().InProcessConn()
}

// Services lists the services that run now.
func (m *Parts) Services() []probe.Service {
	m.Mu.Lock()
	defer m.Mu.Unlock()
	services := make([]probe.Service, 0, len(m.running))
	for _, s := range m.running {
		services = append(services, s)
	}
	return services
}

// Address is the address of what listens on loopback.
func (m *Parts) Address(port int) string { return net.JoinHostPort(m.Cfg.Host, strconv.Itoa(port)) }

// Public is the address of what controllers and people reach.
func (m *Parts) Public(port int) string {
	return net.JoinHostPort(m.Cfg.Public, strconv.Itoa(port))
}

// Choose takes a free port for a service that listens itself, unless it has one.
func (m *Parts) Choose(number *int) int {
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
func (m *Parts) Describe() mesh.Description {
	return mesh.Description{
		PID: os.Getpid(), Started: time.Now().UTC(), Ready: true, Host: m.Cfg.Host, Public: m.Cfg.Public, Ports: m.Ports(),
		Controllers: m.Cfg.Controllers, Simulating: slices.Contains(m.Names(), PartSimulator), CAFile: m.Authority.CAFile(), Context: m.State.NATSContext(),
		Issuer: m.Cfg.Issuer, Decoder: m.Cfg.Decoder,
	}
}

func (m *Parts) set(change func()) {
	m.Mu.Lock()
	defer m.Mu.Unlock()
	change()
}

// Ports are where the parts listen now.
func (m *Parts) Ports() mesh.Ports {
	m.Mu.Lock()
	defer m.Mu.Unlock()
	return m.Cfg.Ports
}

// SecretFiles are the secret files of the mesh.
func (m *Parts) SecretFiles() secret.Files { return secret.Files(m.State.SecretsDir()) }

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

// stopTimeout bounds the stop of one server.
const stopTimeout = 30 * time.Second

// RestoringFile is in a state directory while a restore fills it. A mesh that has it
// is not whole.
const RestoringFile = "restoring"

// ErrRestoring is why up does not start.
var ErrRestoring = errors.New("a restore into this state directory was broken off, and it has only a part of the mesh: restore again, which begins anew")
