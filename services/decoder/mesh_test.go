package decoder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// long is how long a test waits for what must happen.
const long = time.Minute

// rig is everything around a decoder: a NATS server with the shipped streams, and
// PostgreSQL with the demo fleet's metadata.
type rig struct {
	server *natsserver.Server
	client *stream.Client // the operator's
	js     jetstream.JetStream
	admin  *pgx.Conn
	dsn    string
	fleet  []fleet.Controller
	sent   atomic.Int64
}

// fault makes reading the metadata of the controllers in "faults" fail, as a broken
// row or a refused privilege does.
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

// repair fixes it and says so, as the metadata's trigger does.
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

// send stores events of the controllers on RAW as the bridge does, each with the
// next number in it.
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

// account compares what RAW and DECODED have of a controller: every message once, by
// its id, in order. A repetition of what was there before, with the same id, is what
// the tables leave out.
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
		require.NoError(t, event.ParseDecoded(m.Data(), &d))
		decoded = append(decoded, d.ID)
	}
	return account(raw, decoded)
}

// TestAccount is the control of all that use account.
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

// TestOneControllerWaits has one controller whose metadata cannot be read while
// others send: it waits by itself, and what it sent comes in order once they can.
func TestOneControllerWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, 21)
	all := macs(r.fleet)
	one, others := all[0], all[1:]
	d := r.start(t)
	r.send(t, all...)
	r.acknowledged(t)
	require.Zero(t, testutil.ToFloat64(d.metrics.parked), "the control: nothing is parked without the fault")
	require.NoError(t, r.account(t, one))

	r.breakRow(t, one)
	r.exec(t, "SELECT pg_notify($1, $2)", channel, string(one))
	require.Eventually(t, func() bool { return !d.cache.entries.Contains(one) }, long, 5*time.Millisecond)
	for range 20 {
		r.send(t, all...)
	}
	r.acknowledged(t)
	for _, mac := range others {
		require.NoError(t, r.account(t, mac), mac)
	}
	require.Error(t, r.account(t, one), "the control: its messages wait")
	assert.InDelta(t, 20, testutil.ToFloat64(d.metrics.parked), 0)
	assert.Equal(t, 1, d.parking.len())
	require.NoError(t, d.Ready(t.Context()), "it holds up nobody")

	r.repair(t, one)
	r.send(t, one)
	r.settled(t, d)
	r.send(t, one)
	r.acknowledged(t)
	require.NoError(t, r.account(t, one))
	require.Len(t, r.all(t, stream.Decoded, "f2.decoded."+string(one)+".>"), 23, "each once")
	require.Eventually(t, func() bool { return r.state(t, stream.Parked).Msgs == 0 }, long, 50*time.Millisecond, "the removal goes away itself")
}

// TestKill kills the decoder again and again, while one controller's metadata can be
// read and cannot, and it sends without a pause.
func TestKill(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	one, other := r.fleet[0].MAC, r.fleet[1].MAC
	d := r.start(t)
	r.send(t, one)
	r.acknowledged(t)
	const rounds = 15
	var sending sync.WaitGroup
	over := make(chan struct{})
	sending.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(2 * time.Millisecond):
				r.send(t, one, other)
			}
		}
	})
	random := rand.New(rand.NewPCG(1, 2))
	parked := 0
	for round := range rounds {
		if round%2 == 0 {
			r.breakRow(t, one)
			r.exec(t, "SELECT pg_notify($1, $2)", channel, string(one))
		} else {
			r.repair(t, one)
		}
		work := func() float64 { return testutil.ToFloat64(d.metrics.parked) + testutil.ToFloat64(d.metrics.decoded) }
		enough, deadline := float64(random.IntN(50)), time.Now().Add(5*time.Second)
		for work() < enough && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond) // the moment of the crash is any
		parked += int(testutil.ToFloat64(d.metrics.parked))
		d.kill()
		d = r.start(t)
	}
	close(over)
	sending.Wait()
	r.exec(t, "DELETE FROM faults")
	r.exec(t, "SELECT pg_notify($1, '*')", channel)
	r.settled(t, d)
	assert.Positive(t, parked, "the control: there was something to lose")
	for _, mac := range []topic.MAC{one, other} {
		require.NoError(t, r.account(t, mac), mac)
	}
	t.Logf("%d messages, %d of them parked before a kill", r.sent.Load(), parked)
}

// TestStart has what a crash leaves behind between each two steps.
func TestStart(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	one := r.fleet[0].MAC
	d := r.start(t)
	r.send(t, one)
	r.settled(t, d)
	incarnation := d.incarnation
	d.stop()
	// put stores the messages of RAW from sequence from on where a decoder before did.
	put := func(t *testing.T, from, to uint64, where string) {
		t.Helper()
		s, err := r.js.Stream(t.Context(), stream.Raw)
		require.NoError(t, err)
		var messages []*nats.Msg
		for sequence := from; sequence <= to; sequence++ {
			raw, err := s.GetMsg(t.Context(), sequence)
			require.NoError(t, err)
			m, letter := take(raw.Subject, raw.Header, raw.Data, event.PlaceID(incarnation, sequence), raw.Time)
			require.Nil(t, letter)
			if where == stream.Parked {
				messages = append(messages, parkedMessage(&m))
				continue
			}
			var out result
			var own worker
			d.decodeMessage(&m, &controller{id: 1}, &own, &out)
			messages = append(messages, out.decoded)
		}
		_, err = r.client.Store(t.Context(), where, messages)
		require.NoError(t, err)
	}
	acknowledge := func(t *testing.T, n int) {
		t.Helper()
		consumer, err := r.js.Consumer(t.Context(), stream.Raw, stage)
		require.NoError(t, err)
		batch, err := consumer.Fetch(n)
		require.NoError(t, err)
		for m := range batch.Messages() {
			require.NoError(t, m.DoubleAck(t.Context()))
		}
		require.NoError(t, batch.Error())
	}
	remove := func(t *testing.T) {
		t.Helper()
		last, err := r.client.Last(t.Context(), stream.Parked, parkedPrefix+string(one))
		require.NoError(t, err)
		_, err = r.js.PublishMsg(t.Context(), removal(one, last.Sequence))
		require.NoError(t, err)
	}
	for _, test := range []struct {
		name  string
		crash func(from, to uint64)
	}{
		{"nothing done", func(uint64, uint64) {}},
		{"parked, not acknowledged", func(from, to uint64) { put(t, from, to, stream.Parked) }},
		{"parked and acknowledged", func(from, to uint64) {
			put(t, from, to, stream.Parked)
			acknowledge(t, int(to-from)+1)
		}},
		{"some parked and acknowledged", func(from, _ uint64) {
			put(t, from, from+2, stream.Parked)
			acknowledge(t, 2)
		}},
		{"some decoded since", func(from, to uint64) {
			put(t, from, to, stream.Parked)
			acknowledge(t, int(to-from)+1)
			put(t, from, from+2, stream.Decoded)
		}},
		{"all decoded since", func(from, to uint64) {
			put(t, from, to, stream.Parked)
			acknowledge(t, int(to-from)+1)
			put(t, from, to, stream.Decoded)
		}},
		{"removed, not acknowledged", func(from, to uint64) {
			put(t, from, to, stream.Parked)
			put(t, from, to, stream.Decoded)
			remove(t)
		}},
		{"parked again behind a removal", func(from, to uint64) {
			put(t, from, from+1, stream.Parked)
			put(t, from, from+1, stream.Decoded)
			remove(t)
			put(t, from+2, to, stream.Parked)
			acknowledge(t, int(to-from)+1)
		}},
	} {
		from := r.state(t, stream.Raw).LastSeq + 1
		for range 6 {
			r.send(t, one)
		}
		test.crash(from, from+5)
		d := r.start(t)
		r.send(t, one)
		r.settled(t, d)
		require.NoError(t, r.account(t, one), test.name)
		d.stop()
	}
}

// TestFlood has the controller send without a pause while it is unparked: newer
// messages are parked as fast as older ones are decoded, and yet it ends.
func TestFlood(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	one := r.fleet[0].MAC
	r.breakRow(t, one)
	d := r.start(t)
	r.send(t, one)
	r.acknowledged(t)
	over, sent := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for {
			select {
			case <-over:
				return
			default:
				if !assert.NoError(t, r.sendOne(t.Context(), one)) {
					return
				}
			}
		}
	}()
	require.Eventually(t, func() bool { return testutil.ToFloat64(d.metrics.parked) > 100 }, long, time.Millisecond)
	r.repair(t, one)
	require.Eventually(t, func() bool { return d.parking.len() == 0 }, long, time.Millisecond)
	close(over)
	<-sent
	r.settled(t, d)
	require.NoError(t, r.account(t, one))
}

// TestParkedFull has more parked than PARKED takes: only then RAW is held back, the
// readiness says why, and it goes on by itself once the metadata can be read.
func TestParkedFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	one, other := r.fleet[0].MAC, r.fleet[1].MAC
	r.breakRow(t, one)
	d := r.start(t)
	r.send(t, other)
	r.acknowledged(t) // PARKED is there
	s, err := r.js.Stream(t.Context(), stream.Parked)
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	cfg.MaxBytes = 64 << 10
	_, err = r.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	for range 300 {
		r.send(t, one, other)
	}
	require.Eventually(t, func() bool {
		err := d.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "PARKED is full")
	}, long, 20*time.Millisecond)
	require.Less(t, r.state(t, stream.Parked).Bytes, uint64(cfg.MaxBytes), "what removes messages has room")

	r.repair(t, one)
	r.settled(t, d)
	require.NoError(t, d.Ready(t.Context()))
	for _, mac := range []topic.MAC{one, other} {
		require.NoError(t, r.account(t, mac), mac)
	}
}

// TestPostgresAway has the database accept connections and answer nothing. A whole
// fleet that was never heard before is parked, without waiting for it one by one, and
// comes when it is back.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	all := macs(r.fleet)
	known := all[0]
	line := newLine(t, r.dsn)
	r.dsn = line.dsn
	d := r.start(t)
	require.Eventually(t, func() bool {
		r.send(t, known)
		return d.cache.entries.Contains(known)
	}, long, 100*time.Millisecond)
	r.acknowledged(t)

	line.cut(true)
	r.send(t, all...)
	r.send(t, all...)
	r.acknowledged(t) // one by one it would be 500 s, and more than long
	assert.Equal(t, len(all)-1, d.parking.len())
	require.NoError(t, r.account(t, known), "what is known is used")
	require.Error(t, r.account(t, all[1]), "the control")

	line.cut(false)
	r.settled(t, d)
	for _, mac := range all {
		require.NoError(t, r.account(t, mac), mac)
	}
}

// line is a way to PostgreSQL that can be cut.
type line struct {
	dsn    string
	target string

	mu    sync.Mutex
	dead  bool
	conns []net.Conn
}

func newLine(t *testing.T, dsn string) *line {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := fmt.Sprintf(":%d", cfg.Port)
	l := &line{target: cfg.Host + port, dsn: strings.Replace(dsn, port, fmt.Sprintf(":%d", listener.Addr().(*net.TCPAddr).Port), 1)}
	require.NotEqual(t, dsn, l.dsn)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				all.Go(func() { l.carry(conn) })
			}
		}
	})
	t.Cleanup(func() { _ = listener.Close(); l.cut(true); all.Wait() })
	return l
}

// carry is for one connection. Of a cut line it keeps what comes to itself.
func (l *line) carry(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	l.mu.Lock()
	dead := l.dead
	l.conns = append(l.conns, conn)
	l.mu.Unlock()
	if dead {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	server, err := net.Dial("tcp", l.target) //nolint:noctx // the test's own
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, conn)
		_ = server.Close()
	}()
	_, _ = io.Copy(conn, server)
}

// cut closes what there is.
func (l *line) cut(dead bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = dead
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

// TestRowOfAnotherType has a fractional "Decimals" in the metadata of a template that
// everybody uses: it costs that data point, and stops nobody.
func TestRowOfAnotherType(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	send := func() {
		for _, mac := range macs(r.fleet) {
			r.publish(t, "f2.raw.tele."+string(mac)+".sensor-mode.1.sensor-1", time.Now(), frameBody(contract))
		}
	}
	values := func() (all []int) {
		for _, m := range r.all(t, stream.Decoded, "f2.decoded.>") {
			var d event.Decoded
			require.NoError(t, event.ParseDecoded(m.Data(), &d))
			all = append(all, len(d.Values))
		}
		return all
	}
	d := r.start(t)
	send()
	r.acknowledged(t)
	require.Equal(t, []int{3, 3, 3}, values(), "the control")

	r.exec(t, `ALTER TABLE "DataPoint" ALTER "Decimals" TYPE numeric`)
	r.exec(t, `UPDATE "DataPoint" SET "Decimals" = 1.5 WHERE "DataPointId" = 1`)
	r.exec(t, "SELECT pg_notify($1, '*')", channel)
	require.Eventually(t, func() bool {
		send()
		r.acknowledged(t)
		all := values()
		return all[len(all)-1] == 2
	}, long, 100*time.Millisecond)
	assert.Zero(t, d.parking.len())
	letters := r.all(t, stream.DeadLetter, "f2.dead.decoder.*."+string(r.fleet[0].MAC))
	require.NotEmpty(t, letters)
	assert.Equal(t, "1", letters[0].Headers().Get(deadletter.HeaderDataPoint))
	assert.Contains(t, letters[0].Headers().Get(deadletter.HeaderDetail), `"Decimals"`)
	assert.Empty(t, letters[0].Data(), "the message is in RAW")
}
