package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// services are processes of their own here, so that each can die alone.
var services = []string{local.PartKeeper, local.PartBridge, local.PartDecoder, local.PartWriter, local.PartRegistrar, local.PartHealth}

// weakness is what a negative control takes away. The zero value is a sound mesh.
type weakness struct {
	name       string
	unsynced   bool           // NATS syncs when it likes
	noSaves    bool           // the broker saves nothing while it runs
	bridgeLink func() rewrite // changes what the bridge and the broker say to each other
	afterStart func(ctx context.Context, s *system) error
}

// system is a whole mesh of which every part can be killed, paused and cut off. The
// supervisor of a local mesh runs PostgreSQL, PgBouncer and Mosquitto.
type system struct {
	cfg      *Config
	weakness weakness
	log      *slog.Logger
	folder   string
	disk     *disk // nil: a plain folder
	state    mesh.State
	parts    *local.Parts
	nats     *child
	services map[string]*child
	links    map[string]*link
	spares   []*controller
	js       jetstream.JetStream
	closeJS  func()
	lock     *os.File // of the state directory: commands look whether a mesh runs
}

// build makes the disk and the state, and starts everything.
func build(ctx context.Context, cfg *Config, w weakness, log *slog.Logger) (s *system, err error) {
	s = &system{cfg: cfg, weakness: w, log: log, services: map[string]*child{}, links: map[string]*link{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	if s.folder, err = os.MkdirTemp(cfg.Dir, "soak-"); err != nil {
		return s, fmt.Errorf("making a folder: %w", err)
	}
	if err := os.Chmod(s.folder, 0o755); err != nil { //nolint:gosec // the servers' accounts must get through
		return s, fmt.Errorf("making a folder: %w", err)
	}
	base := s.folder
	if cfg.diskProblem == nil {
		if s.disk, err = createDisk(ctx, s.folder); err != nil {
			return s, err
		}
		base = s.disk.dir
	}
	s.state = mesh.State{Dir: filepath.Join(base, "state")}
	if s.parts, err = cfg.newMesh(s.state, w.noSaves, log); err != nil {
		return s, err
	}
	if err := os.Chmod(s.state.Dir, 0o711); err != nil { //nolint:gosec // as above
		return s, fmt.Errorf("making a folder: %w", err)
	}
	if s.parts.Cfg.Ports.NATS, err = port.Pick("127.0.0.1", 0); err != nil {
		return s, err
	}
	args := []string{"soak-nats", s.state.Dir, "--port", strconv.Itoa(s.parts.Cfg.Ports.NATS)}
	if w.unsynced {
		args = append(args, "--unsynced")
	}
	s.nats = &child{name: local.PartNATS, program: cfg.Program, args: args, env: os.Environ(), log: log}
	return s, s.start(ctx)
}

// start starts all parts, for the first time or after a power cut.
func (s *system) start(ctx context.Context) error {
	if err := s.nats.start(); err != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	for _, part := range []string{local.PartPostgres, local.PartPgBouncer, local.PartMosquitto} {
		if err := s.parts.Start(ctx, part); err != nil {
			return err
		}
	}
	if len(s.links) == 0 {
		if err := s.openLinks(); err != nil {
			return err
		}
	}
	if err := s.announce(); err != nil {
		return err
	}
	for _, name := range services {
		if s.services[name] == nil {
			program := s.cfg.Program
			if s.cfg.UpgradeFrom != "" {
				program = s.cfg.UpgradeFrom
			}
			s.services[name] = &child{name: name, program: program, args: []string{name, "--log-format=json"}, env: s.environment(name), log: s.log}
		}
		if err := s.services[name].start(); err != nil {
			return err
		}
	}
	return nil
}

// announce lets the operator's commands find the mesh.
func (s *system) announce() (err error) {
	if s.lock, err = s.state.Lock(); err != nil {
		return err
	}
	if err := mesh.NoteHolder(s.lock); err != nil {
		return err
	}
	return s.state.Save(s.parts.Describe())
}

// connect waits for the streams.
func (s *system) connect(ctx context.Context) error {
	if s.js == nil {
		store := secret.NewStore(secret.Chain{s.parts.SecretFiles()}, slog.New(slog.DiscardHandler))
		url := "tls://" + s.parts.Address(s.parts.Cfg.Ports.NATS)
		nc, err := stream.Connect(stream.Config{URL: url, CAFile: s.parts.Authority.CAFile()}, "operator", mesh.NatsCredential(store, "operator"), slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		s.closeJS = nc.Close
		if s.js, err = jetstream.New(nc); err != nil {
			return err
		}
	}
	return within(ctx, time.Minute, "NATS has its streams", func(ctx context.Context) bool {
		_, err := s.js.Consumer(ctx, "DECODED", "writer")
		return err == nil
	})
}

// openLinks puts a link between any two parts that talk to each other.
func (s *system) openLinks() error {
	ports := s.parts.Ports()
	targets := map[string]int{"mosquitto": ports.MQTT, "nats": ports.NATS, "postgres": ports.Postgres, "pgbouncer": ports.PgBouncer}
	for _, service := range services {
		for target, number := range targets {
			name := service + "-" + target
			l, err := newLink(name, s.parts.Address(number), s.log)
			if err != nil {
				return err
			}
			s.links[name] = l
		}
	}
	var err error
	s.links["controllers-mosquitto"], err = newLink("controllers-mosquitto", s.parts.Public(ports.MQTTTLS), s.log)
	if err == nil && s.weakness.bridgeLink != nil {
		s.links["bridge-mosquitto"].rewrite = s.weakness.bridgeLink
	}
	return err
}

// usedLinks are those over which something flows.
func (s *system) usedLinks() (names []string) {
	for _, name := range []string{
		"controllers-mosquitto", "bridge-mosquitto", "bridge-nats", "decoder-nats", "decoder-postgres", "decoder-pgbouncer",
		"writer-nats", "writer-postgres", "writer-pgbouncer", "keeper-nats", "registrar-nats",
	} {
		if s.links[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

// environment is that of one service, which reaches the servers over its links.
func (s *system) environment(service string) []string {
	env := s.parts.ServiceEnvironment()
	ports := s.parts.Ports()
	for target, number := range map[string]int{"mosquitto": ports.MQTT, "nats": ports.NATS, "postgres": ports.Postgres, "pgbouncer": ports.PgBouncer} {
		through := s.links[service+"-"+target].address()
		for i := range env {
			env[i] = strings.ReplaceAll(env[i], s.parts.Address(number), through)
		}
	}
	return slices.Concat(os.Environ(), env, []string{"BRIDGE_COMMAND_MAX_AGE=" + commandLimit.String()})
}

// server is the process of a server: its id and how to kill it.
func (s *system) server(name string) (pid int, kill func() error, err error) {
	s.parts.Mu.Lock()
	defer s.parts.Mu.Unlock()
	switch {
	case name == local.PartPostgres && s.parts.Cluster != nil:
		return s.parts.Cluster.Pid(), s.parts.Cluster.Kill, nil
	case name == local.PartPgBouncer && s.parts.Pooler != nil:
		return s.parts.Pooler.Pid(), s.parts.Pooler.Kill, nil
	case name == local.PartMosquitto && s.parts.Mqtt != nil:
		return s.parts.Mqtt.Pid(), s.parts.Mqtt.Kill, nil
	}
	return 0, nil, fmt.Errorf("%s does not run", name)
}

// kill ends a part by SIGKILL. It is started again at once.
func (s *system) kill(name string) error {
	if c := s.child(name); c != nil {
		return c.Signal(syscall.SIGKILL)
	}
	_, kill, err := s.server(name)
	if err != nil {
		return err
	}
	return kill()
}

func (s *system) child(name string) *child {
	if name == local.PartNATS {
		return s.nats
	}
	return s.services[name]
}

// pause stops a part as a debugger does, or lets it go on.
func (s *system) pause(name string, pause bool) error {
	signal := syscall.SIGCONT
	if pause {
		signal = syscall.SIGSTOP
	}
	if c := s.child(name); c != nil {
		return c.Signal(signal)
	}
	pid, _, err := s.server(name)
	if err != nil {
		return err
	}
	return signalTree(pid, signal)
}

// powerCut loses what is not on disk, in all parts at once, and starts them again. The
// journal is not on that disk.
func (s *system) powerCut(ctx context.Context) (cut, up time.Time, err error) {
	cut = time.Now()
	s.killAll()
	if err := s.disk.cutPower(); err != nil {
		return cut, cut, err
	}
	s.halt(false)
	if err := s.disk.restore(ctx); err != nil {
		return cut, cut, err
	}
	up = time.Now()
	if err := s.start(ctx); err != nil {
		return cut, up, fmt.Errorf("%w: %w", errNoStart, err)
	}
	return cut, up, nil
}

// errNoStart means that the mesh did not come back, and the run is over.
var errNoStart = errors.New("the mesh does not start after a power cut")

// killAll ends all processes at once, without waiting: the disk must not lose its power
// while a server goes on without it.
func (s *system) killAll() {
	s.parts.Mu.Lock()
	defer s.parts.Mu.Unlock()
	for _, server := range []interface{ Signal(syscall.Signal) error }{s.parts.Mqtt, s.nats, s.parts.Cluster, s.parts.Pooler} {
		_ = server.Signal(syscall.SIGKILL)
	}
	for _, c := range s.services {
		_ = c.Signal(syscall.SIGKILL)
	}
}

// halt ends all parts.
func (s *system) halt(graceful bool) {
	names := slices.Clone(services)
	slices.Reverse(names)
	for _, name := range names {
		if c := s.services[name]; c != nil {
			c.halt(graceful)
		}
	}
	if !graceful {
		for _, name := range []string{local.PartMosquitto, local.PartPgBouncer, local.PartPostgres} {
			if pid, kill, err := s.server(name); err == nil {
				_ = signalTree(pid, syscall.SIGKILL)
				_ = kill()
			}
		}
	}
	if s.parts != nil {
		s.parts.StopAll()
	}
	if s.nats != nil {
		s.nats.halt(graceful)
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// close stops and deletes everything.
func (s *system) close(ctx context.Context) error {
	s.halt(true)
	if s.closeJS != nil {
		s.closeJS()
	}
	for _, l := range s.links {
		l.close()
	}
	var err error
	if s.parts != nil {
		err = s.parts.Remove()
	}
	if s.disk != nil {
		err = errors.Join(err, s.disk.close(ctx))
	}
	return errors.Join(err, os.RemoveAll(s.folder))
}

// query connects to the tables as their reader, not over a link.
func (s *system) query(ctx context.Context) (*pgx.Conn, error) {
	return mesh.ConnectPostgres(ctx, s.parts.DSN("", mesh.DatabaseTelemetry), s.parts.Secrets, mesh.SecretReader)
}
