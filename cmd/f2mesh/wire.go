package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
	evaluator "github.com/f2mesh/f2mesh/services/alarm"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/console"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	trimmer "github.com/f2mesh/f2mesh/services/keeper"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/f2mesh/f2mesh/services/simulator"
	"github.com/f2mesh/f2mesh/services/writer"
)

// meshConfig says how a mesh with its services runs on this machine.
type meshConfig struct {
	local.Config
	WatchTopics bool // has the broker tell of each denied publish
	Keeper      trimmer.Config
	Bridge      bridge.Config
	Decoder     decoder.Config
	Writer      writer.Config
	Registrar   server.Config
	Health      monitor.Config
	Console     console.Config
	Alarm       evaluator.Config
}

// newMesh is a mesh of this machine with all services. Nothing is started yet.
func newMesh(st mesh.State, cfg meshConfig, log *slog.Logger) (*local.Parts, error) {
	var denied server.Observer
	base := cfg.Config
	base.Version = version
	base.ClientID, base.Filter, base.Registry, base.Admit = cfg.Bridge.ClientID, cfg.Bridge.Filter, migrateRegistry, admitDemo
	settings, err := json.Marshal(cfg.Decoder)
	if err != nil {
		return nil, fmt.Errorf("keeping the decoder's settings: %w", err)
	}
	base.Decoder = settings
	if cfg.WatchTopics {
		base.Denied = denied.Tell
	}
	base.Services = []local.Part{
		{Name: local.PartKeeper, Build: func(*local.Parts) service.Build { return trimmer.Build(cfg.Keeper) }},
		{Name: local.PartBridge, Build: func(m *local.Parts) service.Build { return newBridge(bridgeOf(m, cfg.Bridge)) }},
		{Name: local.PartDecoder, Build: func(m *local.Parts) service.Build { return newDecoder(decoderOf(m, cfg.Decoder)) }},
		{Name: local.PartWriter, Build: func(m *local.Parts) service.Build { return newWriter(writerOf(m, cfg.Writer)) }},
		{Name: local.PartRegistrar, Build: func(m *local.Parts) service.Build {
			return denied.ToldBy(newRegistrar(registrarOf(m, cfg.Registrar), m.Issuer))
		}},
		{Name: local.PartHealth, Build: func(m *local.Parts) service.Build {
			return newHealth(healthOf(m, cfg.Health), consoleOf(m, cfg.Console), m.Metrics())
		}},
		{Name: local.PartAlarm, Build: func(m *local.Parts) service.Build { return evaluator.Build(alarmOf(m, cfg.Alarm)) }},
	}
	return local.New(st, base, log)
}

// admitDemo registers the demo fleet: the broker takes who may connect from the registry.
func admitDemo(ctx context.Context, m *local.Parts) error {
	registry, err := registrar.Open(ctx, m.State, m.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry), m.Issuer, m.Secrets, m.Log.With("service", local.PartRegistrar))
	if err != nil {
		return err
	}
	defer registry.Close()
	return registry.Admit(ctx, registrar.Origin{Actor: "up"}, fleet.Demo(m.Cfg.Controllers))
}

func bridgeOf(m *local.Parts, cfg bridge.Config) bridge.Config {
	cfg.URL = "tcp://" + m.Address(m.Ports().MQTT)
	cfg.AccessFile = m.State.Path(access.FileName)
	return cfg
}

func decoderOf(m *local.Parts, cfg decoder.Config) decoder.Config {
	cfg.DSN, cfg.PooledDSN = m.DSN(mesh.RoleDecoder, mesh.DatabaseMetadata), m.PooledDSN(mesh.RoleDecoder, mesh.DatabaseMetadata)
	cfg.Schema = mesh.MetadataSchema
	return cfg
}

func writerOf(m *local.Parts, cfg writer.Config) writer.Config {
	cfg.DSN, cfg.PooledDSN = m.DSN(mesh.RoleWriter, mesh.DatabaseTelemetry), m.PooledDSN(mesh.RoleWriter, mesh.DatabaseTelemetry)
	return cfg
}

func registrarOf(m *local.Parts, cfg server.Config) server.Config {
	cfg.RegistryDSN = m.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry)
	cfg.MetadataDSN = m.DSN(mesh.RoleRegistrar, mesh.DatabaseMetadata)
	cfg.MetadataSchema = mesh.MetadataSchema
	cfg.Devices, cfg.Broker, cfg.ServerCAs = m.State.DevicesDir(), m.State.Path("mosquitto"), m.Authority.CAFile()
	cfg.CertFile, cfg.KeyFile = m.ServerPair()
	cfg.Listen = m.Public(m.Choose(&m.Cfg.Ports.EST))
	cfg.Watch.MQTTURL = "tcp://" + m.Address(m.Ports().MQTT)
	return cfg
}

func healthOf(m *local.Parts, cfg monitor.Config) monitor.Config {
	cfg.CertFile, cfg.KeyFile = m.ServerPair()
	cfg.CAs = m.Authority.CAFile()
	cfg.Listen = m.Public(m.Choose(&m.Cfg.Ports.HTTP))
	return cfg
}

func consoleOf(m *local.Parts, cfg console.Config) console.Config {
	cfg.Readings, cfg.Metadata = m.DSN(mesh.RoleReader, mesh.DatabaseTelemetry), m.DSN(mesh.RoleReader, mesh.DatabaseMetadata)
	cfg.Registry, cfg.Schema, cfg.Access = m.DSN(mesh.RoleReader, mesh.DatabaseRegistry), mesh.MetadataSchema, m.State.Path(access.FileName)
	return cfg
}

func alarmOf(m *local.Parts, cfg evaluator.Config) evaluator.Config {
	if cfg.Rules == "" {
		cfg.Rules, cfg.Optional = m.State.Path("alarms.yaml"), true
	}
	return cfg
}

// simulate is the part that plays the demo fleet.
func simulate(m *local.Parts, every time.Duration) supervisor.Run {
	return func(ctx context.Context, ready func()) error {
		cfg := simulator.Config{
			Broker: "ssl://" + m.Public(m.Ports().MQTTTLS), CAFile: m.Authority.CAFile(), Devices: m.State.DevicesDir(),
			Interval: every, OldFirmware: 0.2, Persistent: 0.25,
		}
		ready()
		_, err := simulator.New(cfg, fleet.Demo(m.Cfg.Controllers), m.Log.With("service", local.PartSimulator)).Run(ctx)
		return err
	}
}

// migrations make the tables that the services own, by database.
func migrations() map[string]mesh.Migration {
	return map[string]mesh.Migration{
		mesh.DatabaseTelemetry: func(ctx context.Context, pool *database.Pool, number int64, log *slog.Logger) error {
			return writer.Migrate(ctx, pool.Pool, number, log)
		},
		mesh.DatabaseRegistry: func(ctx context.Context, pool *database.Pool, number int64, _ *slog.Logger) error {
			return registrar.MigrateTo(ctx, pool.Pool, number)
		},
	}
}
