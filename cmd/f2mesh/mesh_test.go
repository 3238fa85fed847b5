package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
	evaluator "github.com/f2mesh/f2mesh/services/alarm"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/console"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	trimmer "github.com/f2mesh/f2mesh/services/keeper"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/f2mesh/f2mesh/services/writer"
)

// TestMain is f2mesh itself where a test starts the test's program as a service.
func TestMain(m *testing.M) {
	version = "0123abc-dirty" // as the build stamps a clone without tags
	if os.Getenv("F2MESH_TEST_RUN") != "" {
		main()
	}
	goleak.VerifyTestMain(m, natsservertest.Leftovers()...)
}

// testMesh is a mesh of real servers on free ports.
type testMesh struct {
	*local.Parts
	js   jetstream.JetStream
	rows *pgxpool.Pool // the reader's
}

// startMesh starts everything but the simulator, and stops it at the test's end.
func startMesh(t *testing.T, change ...func(*meshConfig)) *testMesh {
	t.Helper()
	return startMeshLogging(t, testLog(t), change...)
}

// startMeshLogging is startMesh with a log of the test's own.
func startMeshLogging(t *testing.T, log *slog.Logger, change ...func(*meshConfig)) *testMesh {
	t.Helper()
	return startMeshIn(t, mesh.State{Dir: filepath.Join(accounttest.TempDir(t), "state")}, log, change...)
}

// startMeshIn is startMeshLogging on a state directory that may hold a mesh.
func startMeshIn(t *testing.T, st mesh.State, log *slog.Logger, change ...func(*meshConfig)) *testMesh {
	t.Helper()
	cfg := meshConfig{
		Config: local.Config{Host: mesh.Loopback, Controllers: 3, Pooling: true},
		Keeper: defaults[trimmer.Config](t),
		Bridge: bridge.Config{
			URL: "set later", ClientID: "f2mesh-bridge", Filter: "#", Batch: 1000, Linger: 2 * time.Millisecond,
			MaxPayload: 1 << 16, CommandMaxAge: 5 * time.Second, DrainTimeout: 5 * time.Second,
			Inflight: 8000, InflightBytes: 64 << 20,
		},
		Decoder: decoder.Config{
			Schema: mesh.MetadataSchema, Zone: "UTC", CacheTTL: 600, CacheUnknownTTL: 30, CacheControllers: 1000,
			Batch: 1000, Linger: 2 * time.Millisecond, Workers: 2, DrainTimeout: 5 * time.Second,
		},
		Writer: writer.Config{
			Batch: 2000, Linger: 2 * time.Millisecond, Timescale: true,
			CompressAfter: 168 * time.Hour, Retention: 2160 * time.Hour, DrainTimeout: 5 * time.Second,
		},
		Registrar: defaults[server.Config](t),
		Health:    defaults[monitor.Config](t),
		Console:   defaults[console.Config](t),
		Alarm:     defaults[evaluator.Config](t),
	}
	for _, c := range change {
		c(&cfg)
	}
	m, err := newMesh(st, cfg, log)
	require.NoError(t, err)
	t.Cleanup(func() {
		m.StopAll()
		require.NoError(t, m.Remove())
	})
	if err := m.StartAll(t.Context()); errors.Is(err, mosquitto.ErrNotInstalled) || errors.Is(err, postgres.ErrNotInstalled) || errors.Is(err, pgbouncer.ErrNotInstalled) {
		accounttest.SkipMissing(t, err)
	} else {
		require.NoError(t, err)
	}
	tm := &testMesh{Parts: m}
	tm.openReaders(t)
	return tm
}

// defaults are those of the command line.
func defaults[Config any](t *testing.T) (cfg Config) {
	t.Helper()
	parser, err := kong.New(&cfg)
	require.NoError(t, err)
	_, err = parser.Parse(nil)
	require.NoError(t, err)
	return cfg
}

// openReaders connects the test itself, to NATS over the wire and to the tables.
func (m *testMesh) openReaders(t *testing.T) {
	t.Helper()
	store := secret.NewStore(secret.Chain{m.SecretFiles()}, m.Log)
	nc, err := stream.Connect(stream.Config{URL: m.Describe().NATSURL(), CAFile: m.Authority.CAFile()}, "operator", mesh.NatsCredential(store, "operator"), m.Log)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	m.js, err = jetstream.New(nc)
	require.NoError(t, err)
	config, err := pgxpool.ParseConfig(m.DSN("", mesh.DatabaseTelemetry))
	require.NoError(t, err)
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) (err error) {
		c.User, c.Password, err = mesh.LogIn(ctx, m.Secrets, mesh.SecretReader)
		return err
	}
	m.rows, err = pgxpool.NewWithConfig(context.Background(), config)
	require.NoError(t, err)
	t.Cleanup(m.rows.Close)
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	out := io.Discard
	if testing.Verbose() {
		out = t.Output()
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// device connects one of the demo fleet's controllers over mTLS, under the
// certificate of mac.
func (m *testMesh) device(t *testing.T, mac topic.MAC) mqtt.Client {
	t.Helper()
	dir := filepath.Join(m.State.DevicesDir(), mac.Dashed())
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "device.crt"), filepath.Join(dir, "device.key"))
	require.NoError(t, err)
	client, err := connectMQTT(m, &tls.Config{
		Certificates: []tls.Certificate{certificate}, RootCAs: m.roots(t), MinVersion: tls.VersionTLS12,
	}, "test-"+string(mac)+"-"+t.Name(), mqtt.NewFileStore(t.TempDir()))
	require.NoError(t, err)
	t.Cleanup(func() { client.Disconnect(100) })
	return client
}

// connectMQTT connects with a store for what has no PUBACK yet. Who publishes while the
// connection may be lost needs one on disk: from a store in memory (nil) paho 1.5.1 marks
// a message as a duplicate while another of its goroutines writes it.
func connectMQTT(m *testMesh, config *tls.Config, id string, store mqtt.Store) (mqtt.Client, error) {
	client := mqtt.NewClient(mqtt.NewClientOptions().
		AddBroker("ssl://" + m.Address(m.Ports().MQTTTLS)).SetClientID(id).SetTLSConfig(config).SetStore(store).
		SetAutoReconnect(true).SetMaxReconnectInterval(time.Second).SetConnectTimeout(5 * time.Second))
	token := client.Connect()
	token.WaitTimeout(10 * time.Second)
	return client, token.Error()
}

func (m *testMesh) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(m.Authority.CAFile())
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	return pool
}

// publish waits for the broker's PUBACK.
func publish(t *testing.T, client mqtt.Client, name, payload string) {
	t.Helper()
	token := client.Publish(name, 1, false, payload)
	require.True(t, token.WaitTimeout(30*time.Second), "no PUBACK")
	require.NoError(t, token.Error())
}

// eventually polls until check answers true.
func eventually(t *testing.T, check func() bool, message string, args ...any) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !check() {
		if time.Now().After(deadline) {
			require.FailNowf(t, "timed out", message, args...)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// count runs a query that answers one number.
func (m *testMesh) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, m.rows.QueryRow(t.Context(), query, args...).Scan(&n))
	return n
}

// deadLetters lists those whose subject matches the filter.
func (m *testMesh) deadLetters(t *testing.T, filter string) []jetstream.Msg {
	t.Helper()
	consumer, err := m.js.OrderedConsumer(t.Context(), stream.DeadLetter, jetstream.OrderedConsumerConfig{FilterSubjects: []string{filter}})
	require.NoError(t, err)
	info, err := consumer.Info(t.Context())
	require.NoError(t, err)
	var letters []jetstream.Msg
	for range info.NumPending {
		msg, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
		require.NoError(t, err)
		letters = append(letters, msg)
	}
	return letters
}

const mac = fleet.FirstMAC

// settled waits until everything that was published has gone all the way.
func (m *testMesh) settled(t *testing.T) {
	t.Helper()
	quiet := func(streamName, consumer string) bool {
		c, err := m.js.Consumer(t.Context(), streamName, consumer)
		if err != nil {
			return false
		}
		info := c.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	}
	eventually(t, func() bool { return quiet("RAW", "decoder") && quiet("DECODED", "writer") }, "messages are still pending")
}

func decoded(t *testing.T, place string, data []byte) event.Decoded {
	t.Helper()
	var d event.Decoded
	require.NoError(t, event.ParseDecoded("f2.decoded."+place, data, &d))
	return d
}
