package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/soak"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/f2mesh/f2mesh/services/writer"
)

type soakCommand struct {
	Messages    int           `help:"Minimum number of messages: they are sent until the last fault is over." default:"20000"`
	Faults      int           `help:"Number of faults, spread over the messages." default:"8"`
	Seed        uint64        `help:"Seed of the schedule of faults. The same seed has the same schedule. 0: one from the clock, which the report shows."`
	Rate        int           `help:"Messages per second." default:"500"`
	Controllers int           `help:"Number of simulated controllers." default:"8"`
	Kinds       []string      `help:"Kinds of faults. Default: all that this machine can do." placeholder:"KIND"`
	Controls    string        `help:"Negative controls to run afterwards: all, none, or their names, separated by commas." default:"all"`
	Bound       time.Duration `help:"How long before its end the broker may have acknowledged messages that it then loses." default:"1s"`
	UpgradeFrom string        `help:"Program of an earlier release, which runs the services until the fault \"upgrade\"." type:"existingfile"`
	Dir         string        `help:"Directory for the mesh and its disk. Default: the system's temporary directory." type:"existingdir"`
	Report      string        `help:"File for the report as JSON." type:"path"`
}

// Run runs a mesh under faults, and the controls. Its exit status is 1 if a promise was
// broken or a control came out clean.
func (c *soakCommand) Run(ctx context.Context, log *slog.Logger) error {
	cfg, err := c.config(log)
	if err != nil {
		return err
	}
	missing, err := cfg.Prepare(ctx)
	if err != nil {
		return err
	}
	return soak.RunAll(ctx, cfg, c.Controls, missing, os.Stdout, c.Report)
}

func (c *soakCommand) config(log *slog.Logger) (cfg soak.Config, err error) {
	program, err := os.Executable()
	if err != nil {
		return cfg, fmt.Errorf("finding this program: %w", err)
	}
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano()) //nolint:gosec // any number
	}
	var up upCommand
	if err := parseDefaults(&up); err != nil {
		return cfg, err
	}
	return soak.Config{
		Messages: c.Messages, Faults: c.Faults, Seed: c.Seed, Rate: c.Rate, Controllers: c.Controllers, Kinds: c.Kinds,
		Dir: c.Dir, Bound: c.Bound, UpgradeFrom: c.UpgradeFrom, Program: program, Log: log,
		CommandAge:  up.Bridge.CommandMaxAge + time.Second,
		Environment: serviceEnvironment,
		Progress:    func(text string) { fmt.Println(text) },
		New: func(st mesh.State, withoutSaves bool, controllers int, log *slog.Logger) (*local.Parts, error) {
			cfg := meshConfig{
				Config: local.Config{
					Host: mesh.Loopback, Public: mesh.Loopback, Controllers: controllers, Sizes: up.Sizes, Secrets: up.Secrets, Pooling: true,
				},
				Keeper: up.Keeper, Bridge: up.Bridge, Decoder: up.Decoder, Writer: up.Writer, Registrar: up.Registrar, Health: up.Health,
			}
			if withoutSaves {
				cfg.Autosave = mosquitto.Autosave{Every: time.Hour}
			}
			return newMesh(st, cfg, log)
		},
	}, nil
}

// parseDefaults fills a command with the values that its flags have without arguments.
func parseDefaults(command any) error {
	parser, err := kong.New(command, kong.Vars{"vault_prefix": vault.Prefix})
	if err != nil {
		return fmt.Errorf("reading the default settings: %w", err)
	}
	if _, err := parser.Parse(nil); err != nil {
		return fmt.Errorf("reading the default settings: %w", err)
	}
	return nil
}

// serviceEnvironment is what a service that runs as a process of its own needs to reach
// the servers of a local mesh.
func serviceEnvironment(m *local.Parts) []string {
	r, d, w, h := registrarOf(m, server.Config{}), decoderOf(m, decoder.Config{}), writerOf(m, writer.Config{}), healthOf(m, monitor.Config{})
	return []string{
		"NATS_URL=tls://" + m.Address(m.Ports().NATS), "F2MESH_CA=" + m.Authority.CAFile(), "F2MESH_SECRETS_DIR=" + m.State.SecretsDir(),
		"MQTT_URL=" + bridgeOf(m, bridge.Config{}).URL, "METADATA_DSN=" + d.DSN, "METADATA_SCHEMA=" + mesh.MetadataSchema,
		"TIMESCALE_DSN=" + w.DSN,
		"METADATA_POOLED_DSN=" + d.PooledDSN, "TIMESCALE_POOLED_DSN=" + w.PooledDSN,
		"REGISTRY_DSN=" + r.RegistryDSN, "REGISTRAR_METADATA_DSN=" + r.MetadataDSN, "REGISTRAR_EST=" + r.Listen,
		"REGISTRAR_EST_CERT=" + r.CertFile, "REGISTRAR_EST_KEY=" + r.KeyFile, "REGISTRAR_DEVICES=" + r.Devices,
		"REGISTRAR_BROKER_DIR=" + r.Broker, "REGISTRAR_PKI_DIR=" + m.State.Path("pki"),
		"HEALTH_LISTEN=" + h.Listen, "HEALTH_CERT=" + h.CertFile, "HEALTH_KEY=" + h.KeyFile, "HEALTH_CAS=" + h.CAs,
	}
}

type soakNATSCommand struct {
	Port     int  `required:""`
	Unsynced bool `help:"Sync in the server's own interval: for a negative control."`
}

// Run runs the NATS server of a soak until it is stopped.
func (c *soakNATSCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	var up upCommand
	if err := parseDefaults(&up); err != nil {
		return err
	}
	m, err := newMesh(g.state(), meshConfig{Config: local.Config{
		Host: mesh.Loopback, Public: mesh.Loopback, Ports: mesh.Ports{NATS: c.Port}, Sizes: up.Sizes, Secrets: up.Secrets, Unsynced: c.Unsynced,
	}, Bridge: up.Bridge}, log)
	if err != nil {
		return err
	}
	if err := m.Start(ctx, local.PartNATS); err != nil {
		return err
	}
	<-ctx.Done()
	return errors.Join(m.Stop(local.PartNATS))
}
