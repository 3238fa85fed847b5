package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// containerCommandMax is as commandAge: compose.yaml leaves the bridge's limit at 30 s.
const containerCommandMax = 32 * time.Second

// project is the mesh of compose.yaml, which runs on this machine already. A run has controllers of
// its own there, and leaves their rows and messages behind.
type project struct {
	*system
	compose     containers.Project
	ids         map[string]string // of the containers, by service
	secrets     secret.Source
	description mesh.Description
}

// containers is the host of a mesh in containers.
func (s *system) containers() *project { return s.host.(*project) }

// join registers controllers for a run, and connects to the published ports.
func join(ctx context.Context, cfg *Config, log *slog.Logger) (_ *system, err error) {
	s := &project{
		system:  &system{cfg: cfg, log: log, commandMax: containerCommandMax, links: map[string]*link{}},
		compose: containers.Project{Dir: cfg.Compose}, secrets: containers.SecretFolder(cfg.Compose),
		description: containers.Describe(""),
	}
	s.host = s
	s.description.Hosts, s.description.Host, s.description.Public = nil, mesh.Loopback, mesh.Loopback
	s.breakable = []string{"nats", "postgres", "timescaledb", "pgbouncer", "bridge", "decoder", "writer", "keeper", "registrar", "health"}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	if s.folder, err = os.MkdirTemp(cfg.Dir, "soak-"); err != nil { // for this user alone: it gets private keys
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	if s.ids, err = s.compose.Running(ctx, append(slices.Clone(s.breakable), "mosquitto")...); err != nil {
		return nil, err
	}
	if err := s.register(ctx); err != nil {
		return nil, err
	}
	if err := s.openLink(controllersLink, mesh.Loopback+":"+strconv.Itoa(s.description.Ports.MQTTTLS)); err != nil {
		return nil, err
	}
	return s.system, s.connect(ctx, s.description.NATSURL(), s.secrets, startTime)
}

// register makes controllers that have sent nothing before, and copies their certificates.
func (s *project) register(ctx context.Context) error {
	s.caFile, s.devices = filepath.Join(s.folder, "ca.crt"), filepath.Join(s.folder, "devices")
	s.description.CAFile = s.caFile
	if err := s.compose.Build(ctx); err != nil {
		return err
	}
	if err := containers.Docker(ctx, "cp", s.ids["registrar"]+":/etc/f2mesh/ca.crt", s.caFile); err != nil {
		return err
	}
	if err := s.copyDevices(ctx); err != nil {
		return err
	}
	first, err := s.firstFree()
	if err != nil {
		return err
	}
	all := fleet.Demo(first + spares + s.cfg.Controllers)
	if err := s.compose.Operate(ctx, "demo", "demo", "--controllers="+strconv.Itoa(len(all))); err != nil {
		return fmt.Errorf("registering controllers: %w", err)
	}
	// The spares come first: a revoked controller has no certificate here, and firstFree looks for the last that has one.
	s.fleet = slices.Concat(all[first+spares:], all[first:first+spares])
	return s.copyDevices(ctx)
}

func (s *project) copyDevices(ctx context.Context) error {
	if err := os.RemoveAll(s.devices); err != nil {
		return fmt.Errorf("copying certificates: %w", err)
	}
	return containers.Docker(ctx, "cp", s.ids["registrar"]+":/state/devices", s.devices)
}

// firstFree is the index of the first controller of the demo fleet behind all that have a certificate.
func (s *project) firstFree() (int, error) {
	entries, err := os.ReadDir(s.devices)
	if err != nil {
		return 0, fmt.Errorf("looking for controllers: %w", err)
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	free := 0
	for i, c := range fleet.Demo(maxFleet) {
		if there[c.MAC.Dashed()] {
			free = i + 1
		}
	}
	return free, nil
}

// maxFleet is how many controllers of the demo fleet are looked for.
const maxFleet = 10000

// kill ends a container's processes. Docker starts no container again that somebody killed.
func (s *project) kill(ctx context.Context, name string) (ended time.Time, err error) {
	return s.killThese(ctx, s.ids[name])
}

func (s *project) killThese(ctx context.Context, ids ...string) (ended time.Time, err error) {
	if err := containers.Docker(ctx, append([]string{"kill"}, ids...)...); err != nil {
		return time.Now(), err
	}
	last := ids[0]
	if slices.Contains(ids, s.ids["mosquitto"]) {
		last = s.ids["mosquitto"] // what it lost is judged by when it ended
	}
	if ended, err = containers.Ended(ctx, last); err != nil {
		return time.Now(), err
	}
	return ended, containers.Docker(context.WithoutCancel(ctx), append([]string{"start"}, ids...)...)
}

func (s *project) pause(ctx context.Context, name string, pause bool) error {
	if pause {
		return containers.Docker(ctx, "pause", s.ids[name])
	}
	return containers.Docker(context.WithoutCancel(ctx), "unpause", s.ids[name]) // the mesh goes on after a run that was stopped
}

// restart stops a container in order, and starts it.
func (s *project) restart(ctx context.Context, name string) error {
	return containers.Docker(ctx, "restart", s.ids[name])
}

// killAll ends all parts at once, and starts them in no order, as an engine does whose machine starts.
func (s *project) killAll(ctx context.Context) (ended time.Time, err error) {
	return s.killThese(ctx, slices.Collect(maps.Values(s.ids))...)
}

// f2mesh runs a command of the operator. The registrar's container has what those about devices need.
func (s *project) f2mesh(ctx context.Context, args ...string) error {
	if args[0] == "device" {
		return containers.Docker(ctx, append([]string{"exec", s.ids["registrar"], "/opt/f2mesh/f2mesh"}, args...)...)
	}
	return s.compose.Operate(ctx, "operator", args...)
}

// query goes through the pooler, whose port is always published.
func (s *project) query(ctx context.Context) (*pgx.Conn, error) {
	dsn := s.description.PooledDSN("", mesh.DatabaseTelemetry) + "&default_query_exec_mode=cache_describe"
	return mesh.ConnectPostgres(ctx, dsn, s.secrets, mesh.SecretReader)
}

// close leaves the mesh running.
func (s *project) close(ctx context.Context) (err error) {
	if s.js != nil {
		err = removeProbes(ctx, s.js)
	}
	s.disconnect()
	return errors.Join(err, os.RemoveAll(s.folder))
}
