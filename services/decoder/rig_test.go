package decoder

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// long is how long a test waits for a condition.
const long = time.Minute

// rig is the environment of a decoder: a NATS server with the shipped streams, and PostgreSQL
// with the demo fleet's metadata.
type rig struct {
	server *natsserver.Server
	client *stream.Client // the operator's
	js     jetstream.JetStream
	admin  *pgx.Conn
	dsn    string
	fleet  []fleet.Controller
	sent   atomic.Int64
}

// fault makes queries fail for the controllers in the table "faults", like a broken row or a
// missing privilege.
const fault = `
CREATE TABLE faults (mac text PRIMARY KEY);
CREATE FUNCTION readable(mac text) RETURNS boolean LANGUAGE plpgsql COST 10000 AS $$
BEGIN
  IF mac IS NOT NULL AND EXISTS (SELECT FROM faults f WHERE f.mac = replace(lower($1), '-', '')) THEN
    RAISE EXCEPTION 'the row is broken';
  END IF;
  RETURN true;
END $$;
ALTER TABLE "Device" RENAME TO "DeviceTable";
CREATE VIEW "Device" AS SELECT * FROM "DeviceTable" WHERE readable("MacAddress"::text);`

func newRig(t *testing.T, controllers int) *rig {
	t.Helper()
	r := &rig{server: natsservertest.Start(t, natsservertest.Config(t)), fleet: fleet.Demo(controllers)}
	r.client = r.connect(t, natsserver.Operator)
	r.js = r.client.JetStream()
	_, err := r.client.SetUp(t.Context(), stream.Sizes{}, false)
	require.NoError(t, err)
	r.dsn = postgrestest.DSN(postgrestest.Start(t), "postgres")
	r.admin, err = pgx.Connect(t.Context(), r.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.admin.Close(context.Background()) })
	require.NoError(t, fleet.CreateSchema(t.Context(), r.admin, "public"))
	require.NoError(t, fleet.Seed(t.Context(), r.admin, "public", r.fleet))
	r.exec(t, fault)
	return r
}

func (r *rig) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := r.admin.Exec(t.Context(), sql, args...)
	require.NoError(t, err, sql)
}

func (r *rig) breakRow(t *testing.T, mac topic.MAC) {
	t.Helper()
	r.exec(t, "INSERT INTO faults VALUES ($1)", string(mac))
}

// repair removes the fault and notifies, like the metadata's trigger.
func (r *rig) repair(t *testing.T, mac topic.MAC) {
	t.Helper()
	r.exec(t, "DELETE FROM faults WHERE mac = $1", string(mac))
	r.exec(t, "SELECT pg_notify($1, $2)", channel, string(mac))
}

func (r *rig) connect(t *testing.T, user string) *stream.Client {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	nc, err := stream.Connect(stream.Config{InProcess: r.server.InProcess()}, user, secrettest.Credential(user, natsservertest.Password(user)), log)
	require.NoError(t, err)
	t.Cleanup(func() { natsservertest.Close(nc) })
	require.NoError(t, stream.WaitConnected(t.Context(), nc))
	client, err := stream.NewClient(nc, natsfiles.Files, log)
	require.NoError(t, err)
	return client
}

// process is one run of the decoder.
type process struct {
	*Decoder

	kill func() // ends it at once, whatever it is doing
	stop func() // ends it orderly
}

func (r *rig) start(t *testing.T) *process {
	t.Helper()
	client := r.connect(t, natsserver.Decoder)
	cfg := testConfig()
	cfg.DSN, cfg.Schema, cfg.Linger, cfg.DrainTimeout = r.dsn, "public", time.Millisecond, time.Nanosecond
	d, err := New(cfg, secrettest.Credential(postgres.Superuser, postgrestest.Password), client, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := d.Run(ctx); ctx.Err() == nil {
			assert.NoError(t, err)
		}
	}()
	p := &process{Decoder: d, stop: func() { cancel(); <-ended }}
	p.kill = func() {
		cancel()
		client.JetStream().Conn().Close() // what it publishes from now on reaches nobody
		<-ended
	}
	t.Cleanup(p.stop)
	require.Eventually(t, func() bool { return d.running.Load() != nil }, long, time.Millisecond)
	return p
}

// send stores numbered events of the controllers on RAW, like the bridge.
func (r *rig) send(t *testing.T, macs ...topic.MAC) {
	t.Helper()
	for _, mac := range macs {
		require.NoError(t, r.sendOne(t.Context(), mac))
	}
}

func (r *rig) sendOne(ctx context.Context, mac topic.MAC) error {
	return r.store(ctx, "f2.raw.tele."+string(mac)+".alarm-mode.4.motion-sensor-1", time.Now(), fmt.Sprintf(`{"n":%d,"status":true}`, r.sent.Add(1)))
}

func (r *rig) publish(t *testing.T, subject string, at time.Time, body string) {
	t.Helper()
	require.NoError(t, r.store(t.Context(), subject, at, body))
}

func (r *rig) store(ctx context.Context, subject string, at time.Time, body string) error {
	m := nats.NewMsg(subject)
	m.Data = []byte(body)
	m.Header.Set(event.HeaderReceived, at.UTC().Format(time.RFC3339Nano))
	_, err := r.js.PublishMsg(ctx, m)
	return err
}

func (r *rig) state(t *testing.T, name string) jetstream.StreamState {
	t.Helper()
	s, err := r.js.Stream(t.Context(), name)
	require.NoError(t, err)
	return s.CachedInfo().State
}

// all returns the messages of a stream with a subject.
func (r *rig) all(t *testing.T, name, subject string) (all []jetstream.Msg) {
	t.Helper()
	consumer, err := r.js.OrderedConsumer(t.Context(), name, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	require.NoError(t, err)
	info, err := consumer.Info(t.Context())
	require.NoError(t, err)
	for range info.NumPending {
		m, err := consumer.Next(jetstream.FetchMaxWait(long))
		require.NoError(t, err)
		all = append(all, m)
	}
	return all
}

// account compares RAW and DECODED for a controller: DECODED must have every message once, by
// id and in order. It may repeat earlier messages with the same ids, since the tables ignore
// them.
func account(raw, decoded []event.ID) error {
	var first []event.ID
	seen := map[event.ID]bool{}
	for _, id := range decoded {
		if !seen[id] {
			seen[id] = true
			first = append(first, id)
		}
	}
	for _, id := range raw {
		if !seen[id] {
			return fmt.Errorf("message %d is missing", id.Sequence())
		}
	}
	if !slices.Equal(raw, first) {
		return fmt.Errorf("not in order, or not of RAW: %d messages of %d", len(first), len(raw))
	}
	return nil
}

func (r *rig) account(t *testing.T, mac topic.MAC) error {
	t.Helper()
	s, err := r.js.Stream(t.Context(), stream.Raw)
	require.NoError(t, err)
	incarnation := uint64(s.CachedInfo().Created.UnixNano())
	var raw, decoded []event.ID
	for _, m := range r.all(t, stream.Raw, "f2.raw.*."+string(mac)+".>") {
		about, err := m.Metadata()
		require.NoError(t, err)
		raw = append(raw, event.PlaceID(incarnation, about.Sequence.Stream))
	}
	for _, m := range r.all(t, stream.Decoded, "f2.decoded."+string(mac)+".>") {
		var d event.Decoded
		require.NoError(t, event.ParseDecoded(m.Subject(), m.Data(), &d))
		decoded = append(decoded, d.ID)
	}
	return account(raw, decoded)
}

// TestAccount is the control of account.
func TestAccount(t *testing.T) {
	t.Parallel()
	id := func(numbers ...uint64) (all []event.ID) {
		for _, n := range numbers {
			all = append(all, event.PlaceID(1, n))
		}
		return all
	}
	require.NoError(t, account(id(1, 2, 3), id(1, 2, 3)))
	require.NoError(t, account(id(1, 2, 3), id(1, 2, 1, 2, 3)), "repeated from a place on, with the same ids")
	require.Error(t, account(id(1, 2, 3), id(1, 3)))
	require.Error(t, account(id(1, 2, 3), id(1, 3, 2)))
	require.Error(t, account(id(1, 2), id(1, 2, 3)), "of another message")
}

// acknowledged waits until the decoder has acknowledged all of RAW.
func (r *rig) acknowledged(t *testing.T) {
	t.Helper()
	last := r.state(t, stream.Raw).LastSeq
	require.Eventually(t, func() bool {
		consumer, err := r.js.Consumer(t.Context(), stream.Raw, stage)
		return err == nil && consumer.CachedInfo().AckFloor.Stream >= last
	}, long, 20*time.Millisecond, "RAW is held back")
}

// settled waits until nothing of RAW and PARKED is left to decode.
func (r *rig) settled(t *testing.T, d *process) {
	t.Helper()
	r.acknowledged(t)
	require.Eventually(t, func() bool { return d.parking.len() == 0 }, long, 20*time.Millisecond, "a controller still waits")
}

func macs(controllers []fleet.Controller) (all []topic.MAC) {
	for i := range controllers {
		all = append(all, controllers[i].MAC)
	}
	return all
}
