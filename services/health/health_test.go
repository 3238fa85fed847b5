package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsservertest.Leftovers()...) }

const (
	patience = time.Minute
	right    = "the right password"
)

var errAway = errors.New("the database is away")

// bench is a NATS server, and the health service beside it with its own rights.
type bench struct {
	t         *testing.T
	connect   func(user string) jetstream.JetStream
	operator  jetstream.JetStream
	alarms    <-chan alarm.Alarm
	cfg       Config
	authority *identity.Authority
	server    *Server
	pages     pages
}

// pages are those of a console that says who asked.
type pages struct {
	http.Handler
	run func(status func() ([]byte, error), wrong func(string))
}

func (p pages) Off() bool { return p.Handler == nil }

func (p pages) Run(ctx context.Context, status func() ([]byte, error), wrong func(string)) error {
	p.run(status, wrong)
	<-ctx.Done()
	return nil
}

func newBench(t *testing.T) *bench {
	t.Helper()
	natsConfig := natsservertest.Config(t)
	return newBenchOn(t, natsConfig, natsservertest.Start(t, natsConfig))
}

func newBenchOn(t *testing.T, natsConfig natsserver.Config, started *natsserver.Server) *bench {
	t.Helper()
	b := &bench{t: t, connect: func(user string) jetstream.JetStream {
		nc, err := nats.Connect(started.URL(), nats.UserInfo(user, natsservertest.Password(user)), nats.RootCAs(natsConfig.CAFile),
			nats.CustomInboxPrefix(natsserver.InboxPrefix(user)),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { assert.NoError(t, err) }))
		require.NoError(t, err)
		t.Cleanup(func() { natsservertest.Close(nc) })
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		return js
	}}
	b.operator = b.connect(natsserver.Operator)
	alarms := make(chan alarm.Alarm, 100)
	_, err := b.operator.Conn().Subscribe("f2.alarm.health.>", func(m *nats.Msg) {
		var a alarm.Alarm
		require.NoError(t, json.Unmarshal(m.Data, &a))
		assert.Equal(t, "f2.alarm.health."+a.Kind, m.Subject)
		alarms <- a
	})
	require.NoError(t, err)
	require.NoError(t, b.operator.Conn().Flush())
	b.alarms = alarms
	b.newServer()
	return b
}

func (b *bench) newServer() {
	dir := b.t.TempDir()
	var err error
	b.authority, err = identity.OpenAuthority(filepath.Join(dir, "pki"))
	require.NoError(b.t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a local port
	require.NoError(b.t, err)
	require.NoError(b.t, free.Close())
	b.cfg = Config{
		Listen: free.Addr().String(), CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key"), CAs: b.authority.CAFile(),
		Interval: 10 * time.Millisecond, StalledAfter: time.Minute, StreamFull: 0.8, DeadLetters: 10, Window: 5 * time.Minute,
	}
	require.NoError(b.t, b.authority.IssueServer(b.cfg.CertFile, b.cfg.KeyFile, []string{"127.0.0.1"}))
	inner := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "inner") })
	password := func(context.Context) (string, error) { return right, nil }
	b.server, err = New(b.cfg, password, inner, b.pages, b.connect(natsserver.Health), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(b.t, err)
}

// next is the next alarm.
func (b *bench) next(kind, subject string, raised bool) alarm.Alarm {
	b.t.Helper()
	select {
	case a := <-b.alarms:
		require.Equal(b.t, kind, a.Kind)
		require.Equal(b.t, subject, a.Subject)
		require.Equal(b.t, raised, a.Raised)
		return a
	case <-time.After(patience):
		require.FailNow(b.t, "no alarm", "%s %s", kind, subject)
	}
	return alarm.Alarm{}
}

func (b *bench) none() {
	b.t.Helper()
	require.NoError(b.t, b.server.js.Conn().Flush())
	require.NoError(b.t, b.operator.Conn().Flush())
	select {
	case a := <-b.alarms:
		require.Fail(b.t, "an alarm", a)
	default:
	}
}

// announce is a stage with counters, as its own user.
func (b *bench) announce(name string, cause func() error) (counter func(string) prometheus.Counter) {
	b.t.Helper()
	registry := prometheus.NewRegistry()
	svc, err := probe.Announce(b.connect(name).Conn(), probe.Service{
		Name: name, Version: "1.2.3", Description: "a test", Gatherer: registry, Ready: func(context.Context) error { return cause() },
	})
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = svc.Stop() })
	return func(metric string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "f2mesh_" + name + "_" + metric})
		registry.MustRegister(c)
		return c
	}
}

func (b *bench) stream(name, file string, limit int64) {
	b.t.Helper()
	text, err := natsfiles.Files.ReadFile(file)
	require.NoError(b.t, err)
	var cfg jetstream.StreamConfig
	require.NoError(b.t, json.Unmarshal(text, &cfg))
	require.Equal(b.t, name, cfg.Name)
	if limit > 0 {
		cfg.MaxBytes = limit
	}
	_, err = b.operator.CreateStream(b.t.Context(), cfg)
	require.NoError(b.t, err)
}

// see looks, and judges as if so much time had passed.
func (b *bench) see(after time.Duration) *MeshStatus {
	b.t.Helper()
	now, err := b.server.look(b.t.Context())
	require.NoError(b.t, err)
	now.Time = now.Time.Add(after)
	b.server.judge.see(now)
	b.server.metrics.show(now)
	b.server.note(now, nil)
	return now
}

// announceAll announces every stage, all of them fine, and returns the counters of one.
func (b *bench) announceAll(name string) (counter func(string) prometheus.Counter) {
	b.t.Helper()
	for _, stage := range stages {
		if made := b.announce(stage.name, fine); stage.name == name {
			counter = made
		}
	}
	return counter
}

func fine() error { return nil }

func TestStageThatIsNotReady(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cause := fine
	for _, name := range []string{"bridge", "decoder", "keeper", "registrar", "alarm"} {
		b.announce(name, fine)
	}
	b.announce("writer", func() error { return cause() })
	require.True(t, b.see(0).Ready)
	b.see(time.Hour)
	b.none()

	cause = func() error { return errAway }
	assert.False(t, b.see(time.Hour+time.Second).Ready)
	b.none() // not yet
	b.see(time.Hour + 2*time.Minute)
	assert.Contains(t, b.next(StageStalled, "writer", true).Detail, errAway.Error())
	b.see(time.Hour + 3*time.Minute)
	b.none() // told once
	cause = fine
	b.see(time.Hour + 4*time.Minute)
	b.next(StageStalled, "writer", false)
}

func TestStageThatFinishesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, name := range []string{"bridge", "decoder", "writer", "keeper", "registrar", "alarm"} {
		b.announce(name, fine)
	}
	b.stream("RAW", "stream_raw.json", 0)
	text, err := natsfiles.Files.ReadFile("consumer_raw_decoder.json")
	require.NoError(t, err)
	var cfg jetstream.ConsumerConfig
	require.NoError(t, json.Unmarshal(text, &cfg))
	consumer, err := b.operator.CreateConsumer(t.Context(), "RAW", cfg)
	require.NoError(t, err)
	finish := func() {
		m, err := consumer.Next(jetstream.FetchMaxWait(patience))
		require.NoError(t, err)
		require.NoError(t, m.DoubleAck(t.Context()))
	}
	for range 3 {
		_, err := b.operator.Publish(t.Context(), "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", []byte("{}"))
		require.NoError(t, err)
	}
	assert.Equal(t, uint64(3), b.see(0).stage("decoder").Lag)
	finish()
	b.see(2 * time.Minute) // it waited long, and has gone on
	b.none()
	b.see(4 * time.Minute)
	assert.Contains(t, b.next(StageStalled, "decoder", true).Detail, "2 messages")
	finish()
	b.see(5 * time.Minute)
	b.next(StageStalled, "decoder", false)
}

func TestStreamNearItsLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.stream("PARKED", "stream_parked.json", 1<<20)
	b.see(0)
	b.none()
	body := make([]byte, 100<<10)
	for i := range body {
		body[i] = byte(i * i >> 3) // as far as it compresses, the limit counts what was sent
	}
	for range 9 {
		_, err := b.operator.Publish(t.Context(), "f2.parked.e4fd45f654be", body)
		require.NoError(t, err)
	}
	b.see(time.Second)
	b.next(StreamFull, "PARKED", true)
	stream, err := b.operator.Stream(t.Context(), "PARKED")
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context()))
	b.see(2 * time.Second)
	b.next(StreamFull, "PARKED", false)
}

// History fills a stream and is no alarm; what waits is, and so is a stream that nobody
// trims.
func TestStreamFullOfHistory(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, test := range []struct {
		stream StreamFill
		full   bool
	}{
		{StreamFill{Stream: "RAW", Bytes: 85, Backlog: 10, MaxBytes: 100, trimmed: true}, false},
		{StreamFill{Stream: "RAW", Bytes: 85, Backlog: 80, MaxBytes: 100, trimmed: true}, true},
		{StreamFill{Stream: "RAW", Bytes: 96, Backlog: 0, MaxBytes: 100, trimmed: true}, true},
		{StreamFill{Stream: "RAW", Bytes: 50, Backlog: 50, MaxBytes: 100, trimmed: true}, false},
		{StreamFill{Stream: "DEAD_LETTER", Bytes: 100, Backlog: 100, MaxBytes: 100, ring: true}, false},
		{StreamFill{Stream: "AUDIT", Bytes: 85, Backlog: 85, MaxBytes: 100}, true},
	} {
		b.server.judge.see(&MeshStatus{Time: time.Now(), Streams: []StreamFill{test.stream}})
		assert.Equal(t, test.full, len(b.server.judge.alarms.Subjects(StreamFull)) == 1, "%+v", test.stream)
	}
}

// The backlog is what the reader has yet to acknowledge; without one it is all.
func TestBacklog(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.stream("RAW", "stream_raw.json", 0)
	waits := func() float64 {
		raw := b.see(0).Streams[0]
		require.Equal(t, "RAW", raw.Stream)
		if raw.Bytes == 0 {
			return 0
		}
		return float64(raw.Backlog) / float64(raw.Bytes)
	}
	assert.Zero(t, waits())
	for range 4 {
		_, err := b.operator.Publish(t.Context(), "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", []byte("{}"))
		require.NoError(t, err)
	}
	assert.InDelta(t, 1, waits(), 0)
	consumer, err := b.operator.CreateConsumer(t.Context(), "RAW", jetstream.ConsumerConfig{Durable: "decoder", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	assert.InDelta(t, 1, waits(), 0)
	for _, want := range []float64{0.75, 0.5, 0.25, 0} {
		m, err := consumer.Next(jetstream.FetchMaxWait(patience))
		require.NoError(t, err)
		require.NoError(t, m.DoubleAck(t.Context()))
		assert.InDelta(t, want, waits(), 0.01)
	}
}

// When a stream will be full is the keeper's to say.
func TestDaysToFull(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.stream("RAW", "stream_raw.json", 0)
	registry := prometheus.NewRegistry()
	full := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "f2mesh_keeper_seconds_to_full"}, []string{"stream"})
	registry.MustRegister(full)
	svc, err := probe.Announce(b.connect("keeper").Conn(), probe.Service{
		Name: "keeper", Version: "1.2.3", Gatherer: registry, Ready: func(context.Context) error { return nil },
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = svc.Stop() })
	assert.Zero(t, b.see(0).Streams[0].FullIn)
	full.WithLabelValues("RAW").Set(3600)
	full.WithLabelValues("DECODED").Set(60)
	assert.InDelta(t, 3600, b.see(0).Streams[0].FullIn, 0)
}

func TestDeadLettersRise(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	dead := b.announceAll("writer")("dead_letters_total")
	dead.Add(1000) // before anybody looked
	b.see(0)
	dead.Add(9)
	b.see(10 * time.Second)
	b.none() // as many as may be
	dead.Inc()
	b.see(20 * time.Second)
	assert.Contains(t, b.next(DeadLetters, "writer", true).Detail, "10 dead letters")
	b.see(10*time.Minute - time.Second)
	b.next(DeadLetters, "writer", false)
}

// One of two instances does not answer in time: nothing has risen.
func TestDeadLettersOfInstances(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	now := time.Now()
	see := func(dead map[string]float64) int {
		now = now.Add(10 * time.Second)
		b.server.judge.see(&MeshStatus{Time: now, Stages: []ServiceStatus{{Stage: "decoder", Ready: true, Instances: len(dead), dead: dead}}})
		return len(b.server.judge.alarms.Subjects(DeadLetters))
	}
	assert.Zero(t, see(map[string]float64{"one": 100, "two": 100}))
	assert.Zero(t, see(map[string]float64{"one": 100}))
	assert.Zero(t, see(map[string]float64{"one": 105, "two": 104}))
	assert.Zero(t, see(nil))
	assert.Equal(t, 1, see(map[string]float64{"one": 105, "two": 105}), "ten in all")
	now = now.Add(b.cfg.Window)
	assert.Zero(t, see(map[string]float64{"one": 105, "two": 105}))
	assert.Equal(t, 1, see(map[string]float64{"one": 105, "three": 10}), "one that began meanwhile")
}

func TestBrokerDrops(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	dropped := b.announceAll("registrar")("broker_messages_dropped_total")
	dropped.Add(7)
	b.see(0)
	b.see(10 * time.Second)
	b.none()
	dropped.Inc()
	assert.InDelta(t, 8, b.see(20*time.Second).Dropped, 0)
	b.next(Dropping, "mosquitto", true)
	b.see(10 * time.Minute)
	b.next(Dropping, "mosquitto", false)
}

// TestAlarmsAreListed has what each watcher raises on the status, and a downgraded
// secret; and who does not answer is not among those who watch.
func TestAlarmsAreListed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.see(0)
	assert.Empty(t, s.Alarms)
	assert.Empty(t, s.Watching)
	since := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	watcher := func(name string, listing alarm.Listing, secrets ...secret.Status) {
		t.Helper()
		conn := b.connect(name).Conn()
		svc, err := probe.Announce(conn, probe.Service{
			Name: name, Version: "1.2.3", Gatherer: prometheus.NewRegistry(), Ready: func(context.Context) error { return nil },
			Secrets: func() []secret.Status { return secrets }, Alarms: func() alarm.Listing { return listing },
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = svc.Stop() })
		require.NoError(t, conn.Flush(), "the server has its subscriptions")
	}
	one := alarm.Alarm{Kind: "silent", Service: "registrar", Subject: "e4fd45f654be", Since: since, Raised: true}
	two := alarm.Alarm{Kind: StreamFull, Service: "health", Subject: "RAW", Since: since.Add(time.Hour), Raised: true, Detail: "81%"}
	watcher("registrar", alarm.Listing{Total: 7000, Alarms: []alarm.Alarm{one}},
		secret.Status{Name: "registry_password", Source: "vault", Since: since, Downgraded: true, Problem: "sealed"})
	s = b.see(0)
	assert.Equal(t, []string{"registrar"}, s.Watching)
	watcher("health", alarm.Listing{Total: 1, Alarms: []alarm.Alarm{two}})
	s = b.see(0)
	assert.Equal(t, []string{"health", "registrar"}, s.Watching)
	assert.Equal(t, []alarm.Alarm{two, one, {
		Kind: alarm.SecretDowngraded, Service: "registrar", Subject: "registry_password", Raised: true, Detail: "sealed",
	}}, s.Alarms)
	assert.Equal(t, 7002, s.AlarmsRaised)
	data, err := json.Marshal(s)
	require.NoError(t, err)
	assert.Contains(t, string(data), `"alarms":[{"alarm":"stream_full"`)
}

// A stream at its limit gives one alarm, not one with every look.
func TestStreamAroundItsLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, look := range []struct {
		bytes  uint64
		raised int // alarms in all
	}{{79, 0}, {80, 1}, {79, 1}, {80, 1}, {77, 1}, {75, 0}, {79, 0}, {81, 1}} {
		b.server.judge.see(&MeshStatus{Time: time.Now(), Streams: []StreamFill{{Stream: "AUDIT", Bytes: look.bytes, MaxBytes: 100}}})
		assert.Len(t, b.server.judge.alarms.Subjects(StreamFull), look.raised, "%+v", look)
	}
}

func TestCertificatesThatAreGone(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := newMetrics(reg)
	for _, names := range [][]string{{"old", "stays"}, {"stays", "new"}, {"stays"}} {
		var s MeshStatus
		for _, name := range names {
			s.Certificates = append(s.Certificates, Certificate{Name: name, NotAfter: time.Unix(1, 0)})
		}
		m.show(&s)
		n, err := testutil.GatherAndCount(reg, "f2mesh_health_certificate_not_after_timestamp_seconds")
		require.NoError(t, err)
		assert.Equal(t, len(names), n, names)
	}
}

// A registrar that has started anew hears from the broker only after a moment.
func TestBrokerWithoutReport(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	told := b.announceAll("registrar")
	now := b.see(0)
	now.Dropped, now.counted = 7, true
	b.server.judge.see(now)
	b.see(10 * time.Second)
	told("broker_messages_dropped_total").Add(7)
	assert.InDelta(t, 7, b.see(20*time.Second).Dropped, 0)
	b.none()
}

func TestWindow(t *testing.T) {
	t.Parallel()
	var w window
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	for i, value := range []float64{100, 105, 2, 2} { // 105 to 2: it began anew
		w.add(at(i), value)
	}
	assert.InDelta(t, 7, w.rise(at(-1)), 0)
	assert.InDelta(t, 2, w.rise(at(1)), 0)
	assert.InDelta(t, 0, w.rise(at(2)), 0)
}

func (b *bench) roots() *x509.CertPool {
	b.t.Helper()
	text, err := os.ReadFile(b.authority.CAFile())
	require.NoError(b.t, err)
	roots := x509.NewCertPool()
	require.True(b.t, roots.AppendCertsFromPEM(text))
	return roots
}

// get asks the API that runs.
func (b *bench) get(path string, header string) (code int, body string) {
	b.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: b.roots(), MinVersion: tls.VersionTLS12},
	}}
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, "https://"+b.cfg.Listen+path, http.NoBody)
	require.NoError(b.t, err)
	if header != "" {
		request.Header.Set("Authorization", header)
	}
	answer, err := client.Do(request)
	require.NoError(b.t, err)
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	require.NoError(b.t, err)
	return answer.StatusCode, string(data)
}

func TestAPI(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.announce("bridge", fine)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.server.Run(ctx) }()
	t.Cleanup(func() { stop(); assert.NoError(t, <-done) })
	require.Eventually(t, func() bool { return b.server.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)

	bearer := "Bearer " + right
	for _, one := range []struct {
		path, header string
		code         int
		holds        string
	}{
		{"/healthz", "", 200, "ok"},
		{"/status", "", 401, "health_password"},
		{"/status", "Bearer wrong", 401, ""},
		{"/status", "Bearer ", 401, ""},
		{"/status", "Basic Z3Vlc3Q6d3Jvbmc=", 401, ""},
		{"/status", bearer, 200, `"stage": "bridge"`},
		{"/status", "Basic cHJvbWV0aGV1czp0aGUgcmlnaHQgcGFzc3dvcmQ=", 200, `"streams"`},
		{"/readyz", "", 401, ""},
		{"/readyz", bearer, 503, "writer: does not respond"},
		{"/metrics", "", 401, ""},
		{"/metrics", bearer, 200, "inner"},
	} {
		code, body := b.get(one.path, one.header)
		assert.Equal(t, one.code, code, "%s %s", one.path, one.header)
		assert.Contains(t, body, one.holds, "%s %s", one.path, one.header)
	}
	for _, name := range []string{"decoder", "writer", "keeper", "registrar", "alarm"} {
		b.announce(name, fine)
		require.NoError(t, b.operator.Conn().Flush())
	}
	require.Eventually(t, func() bool { code, _ := b.get("/readyz", bearer); return code == http.StatusOK }, patience, 10*time.Millisecond)
}

// TestHostileClients: the API stands its attackers, and tells of those who guess.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.server.Run(ctx) }()
	t.Cleanup(func() { stop(); assert.NoError(t, <-done) })
	require.Eventually(t, func() bool { return b.server.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
	config := &tls.Config{RootCAs: b.roots(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	target := hostile.Victim{Address: b.cfg.Listen, TLS: config, Path: "/status"}
	var wrong hostile.Attack
	for _, a := range hostile.Attacks(target.Path) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		out, err := a.Do(ctx, target)
		cancel()
		require.NoError(t, err, a.Name)
		assert.NotEqual(t, http.StatusOK, out.Status, a.Name)
		if a.Name == "wrong password" {
			wrong = a
		}
	}
	for range alarmingLogins {
		out, err := wrong.Do(t.Context(), target)
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, out.Status)
	}
	assert.Contains(t, b.next(FailedLogins, "health API", true).Detail, "127.0.0.1")
	code, body := b.get("/status", "Bearer "+right)
	assert.Equal(t, http.StatusOK, code, "whoever knows the password is let in meanwhile")
	var seen MeshStatus
	require.NoError(t, json.Unmarshal([]byte(body), &seen))
	assert.GreaterOrEqual(t, seen.FailedLogins, uint64(alarmingLogins))
	assert.InDelta(t, float64(seen.FailedLogins), testutil.ToFloat64(b.server.metrics.failedLogins), 0)
	b.server.logins.forget(time.Now().Add(loginWindow + time.Second))
	b.next(FailedLogins, "health API", false)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, change := range map[string]func(*Config){
		"listen": func(c *Config) { c.Listen = "" }, "cert": func(c *Config) { c.CertFile = "" },
		"interval": func(c *Config) { c.Interval = 0 }, "stream-full": func(c *Config) { c.StreamFull = 2 },
		"dead-letters": func(c *Config) { c.DeadLetters = 0 },
	} {
		cfg := b.cfg
		change(&cfg)
		_, err := New(cfg, nil, nil, b.pages, b.server.js, prometheus.NewRegistry(), b.server.log)
		require.ErrorContains(t, err, name)
	}
	b.server.cfg.CertFile = filepath.Join(t.TempDir(), "none")
	require.ErrorContains(t, b.server.Run(t.Context()), "certificate")
}

// TestPages has a console beside the API: neither opens the other.
func TestPages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	told := make(chan []byte, 1)
	b.pages = pages{
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "page "+r.URL.Path) }),
		func(status func() ([]byte, error), wrong func(string)) {
			wrong("192.0.2.1")
			for {
				if text, err := status(); err == nil {
					told <- text
					return
				}
				time.Sleep(time.Millisecond)
			}
		},
	}
	b.server.pages = b.pages
	for _, stage := range stages {
		b.announce(stage.name, fine)
	}
	stopped := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { stopped <- b.server.Run(ctx) }()
	var status MeshStatus
	require.NoError(t, json.Unmarshal(<-told, &status))
	assert.Len(t, status.Stages, len(stages))
	cancel()
	require.NoError(t, <-stopped)
	assert.EqualValues(t, 1, b.server.logins.count())

	handler := b.server.handler()
	for path, want := range map[string]string{"/": "page /", "/fleet": "page /fleet", "/healthz": "ok\n"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		assert.Equal(t, want, w.Body.String(), path)
	}
	for _, path := range []string{"/status", "/readyz", "/metrics", "/livez", "/debug/pprof/"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		assert.Equal(t, http.StatusUnauthorized, w.Code, path)
	}
}
