package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/fleet"
	"github.com/f2mesh/f2mesh/pkg/operate/health"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	trimmer "github.com/f2mesh/f2mesh/services/keeper"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/f2mesh/f2mesh/services/simulator"
	"github.com/f2mesh/f2mesh/services/writer"
	"github.com/prometheus/client_golang/prometheus"
)

// meshConfig says how a mesh with its services runs on this machine.
type meshConfig struct {
	localConfig
	WatchTopics bool // has the broker tell of each denied publish
	Keeper      trimmer.Config
	Bridge      bridge.Config
	Decoder     decoder.Config
	Writer      writer.Config
	Registrar   server.Config
	Health      monitor.Config
}

// newMesh is a mesh of this machine with all services. Nothing is started yet.
func newMesh(st state, cfg meshConfig, log *slog.Logger) (*localMesh, error) {
	var denied observer
	local := cfg.localConfig
	local.Version = version
	local.ClientID, local.Admit = cfg.Bridge.ClientID, admitDemo
	settings, err := json.Marshal(cfg.Decoder)
	if err != nil {
		return nil, fmt.Errorf("keeping the decoder's settings: %w", err)
	}
	local.Decoder = settings
	if cfg.WatchTopics {
		local.Denied = denied.tell
	}
	local.Services = []localService{
		{partKeeper, func(*localMesh) build { return newTrimmer(cfg.Keeper) }},
		{partBridge, func(m *localMesh) build { return newBridge(bridgeOf(m, cfg.Bridge)) }},
		{partDecoder, func(m *localMesh) build { return newDecoder(decoderOf(m, cfg.Decoder)) }},
		{partWriter, func(m *localMesh) build { return newWriter(writerOf(m, cfg.Writer)) }},
		{partRegistrar, func(m *localMesh) build {
			return denied.toldBy(newRegistrar(registrarOf(m, cfg.Registrar), m.issuer))
		}},
		{partHealth, func(m *localMesh) build { return newHealth(healthOf(m, cfg.Health), allMetrics(m)) }},
	}
	return newLocal(st, local, log)
}

// admitDemo registers the demo fleet: the broker takes who may connect from the registry.
func admitDemo(ctx context.Context, m *localMesh) error {
	registry, err := openRegistry(ctx, m.state, m.cfg.Host, m.ports().Postgres, m.issuer, m.secrets, m.log.With("service", partRegistrar))
	if err != nil {
		return err
	}
	defer registry.close()
	if err := registrar.Migrate(ctx, registry.pool.Pool); err != nil {
		return err
	}
	return registry.admit(ctx, registrar.Origin{Actor: "up"}, fleet.Demo(m.cfg.Controllers))
}

func bridgeOf(m *localMesh, cfg bridge.Config) bridge.Config {
	cfg.URL = "tcp://" + m.address(m.ports().MQTT)
	return cfg
}

func decoderOf(m *localMesh, cfg decoder.Config) decoder.Config {
	cfg.DSN, cfg.PooledDSN = m.dsn(roleDecoder, databaseMetadata), m.pooledDSN(roleDecoder, databaseMetadata)
	cfg.Schema = metadataSchema
	return cfg
}

func writerOf(m *localMesh, cfg writer.Config) writer.Config {
	cfg.DSN, cfg.PooledDSN = m.dsn(roleWriter, databaseTelemetry), m.pooledDSN(roleWriter, databaseTelemetry)
	return cfg
}

func registrarOf(m *localMesh, cfg server.Config) server.Config {
	cfg.RegistryDSN = m.dsn(roleRegistrar, databaseRegistry)
	cfg.MetadataDSN = m.dsn(roleRegistrar, databaseMetadata)
	cfg.MetadataSchema = metadataSchema
	cfg.Devices, cfg.Broker, cfg.ServerCAs = m.state.devices(), m.state.path("mosquitto"), m.authority.CAFile()
	cfg.CertFile, cfg.KeyFile = m.serverPair()
	cfg.Listen = m.public(m.choose(&m.cfg.Ports.EST))
	cfg.Watch.MQTTURL = "tcp://" + m.address(m.ports().MQTT)
	return cfg
}

func healthOf(m *localMesh, cfg monitor.Config) monitor.Config {
	cfg.CertFile, cfg.KeyFile = m.serverPair()
	cfg.CAs = m.authority.CAFile()
	cfg.Listen = m.public(m.choose(&m.cfg.Ports.HTTP))
	return cfg
}

// allMetrics serves the metrics of all services of this process, and its profiles
// where only this machine reaches them.
func allMetrics(m *localMesh) http.Handler {
	mux := health.Handler(m.running)
	if ip := net.ParseIP(m.cfg.Public); ip != nil && ip.IsLoopback() {
		health.AddProfiles(mux)
	}
	return mux
}

// observer passes what the broker tells of denied publishes to the registrar that runs.
type observer struct {
	registrar atomic.Pointer[server.Server] // nil: none runs
}

func (o *observer) tell(line string) {
	if r := o.registrar.Load(); r != nil {
		r.Observe(line)
	}
}

// toldBy notes the registrar that is built.
func (o *observer) toldBy(inner build) build {
	return func(h *host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (runner, error) {
		r, err := inner(h, streams, reg, log)
		if s, ok := r.(*server.Server); ok && err == nil {
			o.registrar.Store(s)
		}
		return r, err
	}
}

// simulate is the part that plays the demo fleet.
func simulate(m *localMesh, every time.Duration) supervisor.Run {
	return func(ctx context.Context, ready func()) error {
		cfg := simulator.Config{
			Broker: "ssl://" + m.public(m.ports().MQTTTLS), CAFile: m.authority.CAFile(), Devices: m.state.devices(),
			Interval: every, OldFirmware: 0.2, Persistent: 0.25,
		}
		ready()
		_, err := simulator.New(cfg, fleet.Demo(m.cfg.Controllers), m.log.With("service", partSimulator)).Run(ctx)
		return err
	}
}

// migrations make the tables that the services own, by database.
func migrations() map[string]migration {
	return map[string]migration{
		databaseTelemetry: func(ctx context.Context, pool *database.Pool, number int64, log *slog.Logger) error {
			return writer.Migrate(ctx, pool.Pool, number, log)
		},
		databaseRegistry: func(ctx context.Context, pool *database.Pool, number int64, _ *slog.Logger) error {
			return registrar.MigrateTo(ctx, pool.Pool, number)
		},
	}
}
