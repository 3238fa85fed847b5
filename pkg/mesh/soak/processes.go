package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// services are processes of their own here, so that each can die alone.
var services = []string{local.PartKeeper, local.PartBridge, local.PartDecoder, local.PartWriter, local.PartRegistrar, local.PartHealth}

// weakness is what a negative control takes away. The zero value is a sound mesh.
type weakness struct {
	name       string
	unsynced   bool           // NATS syncs when it likes
	noSaves    bool           // the broker saves nothing while it runs
	bridgeLink func() rewrite // changes what the bridge and the broker say to each other
	vaultOnly  bool           // services take no secret from files
	recovery   time.Duration  // instead of recoveryTime
	start      time.Duration  // instead of startTime
	afterStart func(ctx context.Context, s *system) error
}

// processes is a mesh of its own, of which every part can be killed, paused and cut off. The
// supervisor of a local mesh runs PostgreSQL, PgBouncer and Mosquitto.
type processes struct {
	*system
	weakness weakness
	disk     *disk // nil: a plain folder
	state    mesh.State
	parts    *local.Parts
	nats     *child
	vault    *ownVault // nil: the services read files
	services map[string]*child
	lock     *os.File // of the state directory: commands look whether a mesh runs
}

// local is the host of a mesh of processes.
func (s *system) local() *processes { return s.host.(*processes) }

// build makes the disk and the state, and starts everything.
func build(ctx context.Context, cfg *Config, w weakness, log *slog.Logger) (_ *system, err error) {
	s := &processes{system: &system{cfg: cfg, log: log, links: map[string]*link{}}, weakness: w, services: map[string]*child{}}
	s.host, s.commandMax, s.fleet = s, commandAge, fleet.Demo(cfg.Controllers+spares)
	s.breakable = []string{
		local.PartNATS, local.PartPostgres, local.PartPgBouncer, local.PartBridge, local.PartDecoder, local.PartWriter,
		local.PartKeeper, local.PartRegistrar, local.PartHealth,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	if s.folder, err = os.MkdirTemp(cfg.Dir, "soak-"); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	if err := os.Chmod(s.folder, 0o755); err != nil { //nolint:gosec // the servers' accounts must get through
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	base := s.folder
	if cfg.diskProblem == nil {
		if s.disk, err = createDisk(ctx, s.folder); err != nil {
			return nil, err
		}
		base = s.disk.dir
	}
	s.state = mesh.State{Dir: filepath.Join(base, "state")}
	if s.parts, err = cfg.newMesh(s.state, w.noSaves, log); err != nil {
		return nil, err
	}
	if err := os.Chmod(s.state.Dir, 0o711); err != nil { //nolint:gosec // as above
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	s.devices, s.caFile = s.state.DevicesDir(), s.parts.Authority.CAFile()
	if s.parts.Cfg.Ports.NATS, err = port.Pick("127.0.0.1", 0); err != nil {
		return nil, err
	}
	args := []string{"soak-nats", s.state.Dir, "--port", strconv.Itoa(s.parts.Cfg.Ports.NATS)}
	if w.unsynced {
		args = append(args, "--unsynced")
	}
	s.nats = &child{name: local.PartNATS, program: cfg.Program, args: args, env: os.Environ(), log: log}
	if cfg.vaultProblem == nil {
		if s.vault, err = newVault(cfg.Vault, filepath.Join(base, "vault"), s.parts, log); err != nil {
			return nil, err
		}
	}
	return s.system, s.start(ctx)
}

// start starts all parts, for the first time or after a power cut.
func (s *processes) start(ctx context.Context) error {
	if err := s.nats.start(); err != nil {
		return err
	}
	if err := s.connect(ctx, "tls://"+s.parts.Address(s.parts.Cfg.Ports.NATS), s.parts.SecretFiles(), cmp.Or(s.weakness.start, startTime)); err != nil {
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
	if err := s.startVault(ctx); err != nil {
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

// startVault starts the Vault, if there is one. Before the first start of the services an operator fills it; later it
// stays sealed for now, as after any power cut.
func (s *processes) startVault(ctx context.Context) error {
	if s.vault == nil {
		return nil
	}
	if err := s.vault.start(); err != nil || s.vault.initialised() {
		return err
	}
	if err := s.vault.open(ctx); err != nil {
		return err
	}
	return s.operate(ctx, s.vault.root, "vault", "bootstrap")
}

// unsealVault opens the Vault, if there is one, and waits until all services read it again.
func (s *processes) unsealVault(ctx context.Context) error {
	if s.vault == nil {
		return nil
	}
	if err := s.vault.open(ctx); err != nil {
		return err
	}
	return within(ctx, recoveryTime, "all services read Vault", func(ctx context.Context) bool {
		statuses, err := mesh.Services{Conn: s.js.Conn()}.AllSecrets(ctx)
		reading := map[string]bool{}
		for _, status := range statuses {
			if status.Source != "vault" || status.Downgraded {
				return false
			}
			reading[status.Service] = true
		}
		return err == nil && len(reading) == len(services)
	})
}

// announce lets the operator's commands find the mesh.
func (s *processes) announce() (err error) {
	if s.lock, err = s.state.Lock(); err != nil {
		return err
	}
	if err := mesh.NoteHolder(s.lock); err != nil {
		return err
	}
	return s.state.Save(s.parts.Describe())
}

// openLinks puts a link between any two parts that talk to each other.
func (s *processes) openLinks() error {
	for _, service := range services {
		for target, address := range s.addresses() {
			if err := s.openLink(service+"-"+target, address); err != nil {
				return err
			}
		}
	}
	if s.weakness.bridgeLink != nil {
		s.links["bridge-mosquitto"].rewrite = s.weakness.bridgeLink
	}
	return s.openLink(controllersLink, s.parts.Public(s.parts.Ports().MQTTTLS))
}

// addresses are those of the servers that services connect to.
func (s *processes) addresses() map[string]string {
	ports := s.parts.Ports()
	all := map[string]string{
		local.PartMosquitto: s.parts.Address(ports.MQTT), local.PartNATS: s.parts.Address(ports.NATS),
		local.PartPostgres: s.parts.Address(ports.Postgres), local.PartPgBouncer: s.parts.Address(ports.PgBouncer),
	}
	if s.vault != nil {
		all[partVault] = s.vault.address
	}
	return all
}

// environment is that of one service, which reaches the servers over its links.
func (s *processes) environment(service string) []string {
	env := slices.Concat(s.parts.ServiceEnvironment(), s.vault.environment(s.weakness.vaultOnly))
	for target, address := range s.addresses() {
		through := s.links[service+"-"+target].address()
		for i := range env {
			env[i] = strings.ReplaceAll(env[i], address, through)
		}
	}
	return slices.Concat(os.Environ(), env, []string{"BRIDGE_COMMAND_MAX_AGE=" + commandLimit.String()})
}

// server is the process of a server: its id and how to kill it.
func (s *processes) server(name string) (pid int, kill func() error, err error) {
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

func (s *processes) kill(_ context.Context, name string) (ended time.Time, err error) {
	ended = time.Now()
	if c := s.child(name); c != nil {
		return ended, c.Signal(syscall.SIGKILL)
	}
	_, kill, err := s.server(name)
	if err != nil {
		return ended, err
	}
	return ended, kill()
}

func (s *processes) child(name string) *child {
	switch {
	case name == local.PartNATS:
		return s.nats
	case name == partVault && s.vault != nil:
		return s.vault.child
	}
	return s.services[name]
}

// pause stops a part as a debugger does, or lets it go on.
func (s *processes) pause(_ context.Context, name string, pause bool) error {
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
func (s *processes) powerCut(ctx context.Context) (cut, up time.Time, err error) {
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
func (s *processes) killAll() {
	s.parts.Mu.Lock()
	defer s.parts.Mu.Unlock()
	for _, server := range []interface{ Signal(syscall.Signal) error }{s.parts.Mqtt, s.nats, s.parts.Cluster, s.parts.Pooler} {
		_ = server.Signal(syscall.SIGKILL)
	}
	for _, c := range s.services {
		_ = c.Signal(syscall.SIGKILL)
	}
	if s.vault != nil {
		_ = s.vault.Signal(syscall.SIGKILL)
	}
}

// halt ends all parts.
func (s *processes) halt(graceful bool) {
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
	if s.vault != nil {
		s.vault.halt(graceful)
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// close stops and deletes everything.
func (s *processes) close(ctx context.Context) error {
	s.halt(true)
	s.disconnect()
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
func (s *processes) query(ctx context.Context) (*pgx.Conn, error) {
	return mesh.ConnectPostgres(ctx, s.parts.DSN("", mesh.DatabaseTelemetry), s.parts.Secrets, mesh.SecretReader)
}

func (s *processes) f2mesh(ctx context.Context, args ...string) error {
	return s.operate(ctx, secret.Value{}, args...)
}

// operate runs a command of the operator, with a token of Vault or with the operator's own login.
func (s *processes) operate(ctx context.Context, token secret.Value, args ...string) error {
	cmd := exec.CommandContext(ctx, s.cfg.Program, append(args, "--state-dir", s.state.Dir)...) //nolint:gosec // this program
	cmd.Env = slices.Concat(os.Environ(), s.vault.environment(s.weakness.vaultOnly), []string{"VAULT_TOKEN=" + token.Reveal()})
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("f2mesh %s: %w: %s", strings.Join(args, " "), err, process.LastLine(string(out)))
	}
	return nil
}
