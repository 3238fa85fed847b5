package probe

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsservertest.Leftovers()...) }

const patience = time.Minute

// service is one that is ready unless cause says otherwise, with a counter of
// two labels, a gauge and a histogram.
func service(name string, cause error) Service {
	registry := prometheus.NewRegistry()
	stored := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "_stored_total"}, []string{"reason"})
	stored.WithLabelValues("a").Add(2)
	stored.WithLabelValues("b").Add(3)
	connected := prometheus.NewGauge(prometheus.GaugeOpts{Name: name + "_connected"})
	connected.Set(1)
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name + "_seconds"})
	took.Observe(1)
	registry.MustRegister(stored, connected, took)
	return Service{
		Name: name, Version: "1.2.3", Description: "a test", Gatherer: registry,
		Ready: func(context.Context) error { return cause },
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	away := errors.New("the broker is away")
	mux := func(services ...Service) *http.ServeMux { return Handler(func() []Service { return services }) }
	ready, both := mux(service("bridge", nil), service("writer", nil)), mux(service("bridge", nil), service("writer", away))
	profiled := mux()
	AddProfiles(profiled)
	for _, test := range []struct {
		name, method, path string
		handler            http.Handler
		code               int
		holds              string
	}{
		{"ready", "GET", "/readyz", ready, 200, "ok"},
		{"one is not ready", "GET", "/readyz", both, 503, "writer: the broker is away"},
		{"nothing runs yet", "GET", "/readyz", mux(), 200, "ok"},
		{"alive though not ready", "GET", "/livez", both, 200, "ok"},
		{"metrics though not ready", "GET", "/metrics", both, 200, `bridge_stored_total{reason="b"} 3`},
		{"metrics of all", "GET", "/metrics", both, 200, "writer_connected 1"},
		{"only read", "POST", "/readyz", ready, 405, ""},
		{"no other path", "GET", "/", ready, 404, ""},
		{"no profiles for everybody", "GET", "/debug/pprof/cmdline", ready, 404, ""},
		{"profiles for the operator", "GET", "/debug/pprof/cmdline", profiled, 200, "probe.test"},
	} {
		recorder := httptest.NewRecorder()
		test.handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), test.method, test.path, http.NoBody))
		assert.Equal(t, test.code, recorder.Code, test.name)
		assert.Contains(t, recorder.Body.String(), test.holds, test.name)
	}
}

// startServer starts a server and answers how each of its users connects.
func startServer(t *testing.T) (connect func(user string) *nats.Conn) {
	t.Helper()
	server := natsservertest.Start(t, natsservertest.Config(t))
	return func(user string) *nats.Conn {
		nc, err := nats.Connect("", nats.InProcessServer(server.InProcess()), nats.UserInfo(user, natsservertest.Password(user)),
			nats.CustomInboxPrefix(natsserver.InboxPrefix(user)))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
}

func TestAnnounce(t *testing.T) {
	t.Parallel()
	connect := startServer(t)
	bridge, operator := connect(natsserver.Bridge), connect(natsserver.Operator)
	for _, test := range []struct {
		cause error
		want  Readiness
	}{
		{nil, Readiness{Ready: true}},
		{errors.New("the broker is away"), Readiness{Cause: "the broker is away"}},
	} {
		announced, err := Announce(bridge, service("bridge", test.cause))
		require.NoError(t, err)
		require.NoError(t, bridge.Flush())

		answer, err := operator.Request(ReadySubject("bridge"), nil, patience)
		require.NoError(t, err)
		var readiness Readiness
		require.NoError(t, json.Unmarshal(answer.Data, &readiness))
		assert.Equal(t, test.want, readiness)

		answer, err = operator.Request("$SRV.STATS.f2mesh-bridge", nil, patience)
		require.NoError(t, err)
		observed, ok := ParseStats(answer.Data)
		require.True(t, ok)
		assert.Equal(t, Observed{
			Name: "bridge", ID: announced.Info().ID,
			Figures: map[string]float64{"bridge_stored_total": 5, "bridge_connected": 1},
		}, observed)

		require.NoError(t, announced.Stop())
		require.NoError(t, bridge.Flush())
		_, err = operator.Request(ReadySubject("bridge"), nil, patience)
		require.ErrorIs(t, err, nats.ErrNoResponders, "nobody answers for a service that is gone")
	}
}

// TestAskServices has the writer say that it is a bridge, too: nobody asks it.
func TestAskServices(t *testing.T) {
	t.Parallel()
	connect := startServer(t)
	writer, operator := connect(natsserver.Writer), connect(natsserver.Operator)
	own, err := Announce(writer, service("writer", nil))
	require.NoError(t, err)
	_, err = Announce(writer, service("bridge", nil))
	require.NoError(t, err)
	require.NoError(t, writer.Flush())
	for _, nc := range []*nats.Conn{operator, connect(natsserver.Health)} {
		answers, err := AskServices(t.Context(), nc, "STATS", patience)
		require.NoError(t, err)
		require.Len(t, answers, 1)
		require.Len(t, answers["writer"], 1)
		observed, ok := ParseStats(answers["writer"][0])
		require.True(t, ok)
		assert.Equal(t, own.Info().ID, observed.ID)
	}
	pings, err := Ask(t.Context(), operator, "$SRV.STATS", 0, patience)
	require.NoError(t, err)
	assert.Len(t, pings, 2, "the control: to a question to all it answers as both")
}

// TestAnnounceSecrets asks where a service's secrets are from.
func TestAnnounceSecrets(t *testing.T) {
	t.Parallel()
	connect := startServer(t)
	bridge, operator := connect(natsserver.Bridge), connect(natsserver.Operator)
	s := service("bridge", nil)
	want := []secret.Status{{Name: "mqtt_password", Source: "file", Version: "7", Downgraded: true, Problem: "sealed"}}
	s.Secrets = func() []secret.Status { return want }
	announced, err := Announce(bridge, s)
	require.NoError(t, err)
	require.NoError(t, bridge.Flush())
	answer, err := operator.Request(SecretsSubject("bridge"), nil, patience)
	require.NoError(t, err)
	var got []secret.Status
	require.NoError(t, json.Unmarshal(answer.Data, &got))
	assert.Equal(t, want, got)
	answer, err = operator.Request("$SRV.STATS.f2mesh-bridge", nil, patience)
	require.NoError(t, err)
	observed, ok := ParseStats(answer.Data)
	require.True(t, ok, "the figures are still found")
	assert.NotEmpty(t, observed.Figures)
	require.NoError(t, announced.Stop())
	require.NoError(t, bridge.Flush())
	_, err = operator.Request(SecretsSubject("bridge"), nil, patience)
	require.ErrorIs(t, err, nats.ErrNoResponders)
}

// The control of TestAnnounce: what is not a service of f2mesh is not taken for
// one, and a version that `nats micro` cannot read is refused.
func TestAnnounceRefuses(t *testing.T) {
	t.Parallel()
	bridge := startServer(t)(natsserver.Bridge)
	s := service("bridge", nil)
	for _, version := range []string{"", "dev", "1.2", "v1.2.3"} {
		s.Version = version
		_, err := Announce(bridge, s)
		require.Error(t, err, version)
	}
	for _, data := range []string{
		``, `{}`, `[]`, `{"name":"f2mesh-bridge"}`, `{"name":"other","endpoints":[{"data":{"a":1}}]}`,
		`{"name":"f2mesh-","endpoints":[{"data":{"a":1}}]}`, `{"name":"f2mesh-bridge","endpoints":[{"data":{"error":"text"}}]}`,
	} {
		_, ok := ParseStats([]byte(data))
		assert.False(t, ok, data)
	}
	_, ok := ParseStats([]byte(`{"name":"f2mesh-bridge","endpoints":[{"data":{"a":1}}]}`))
	assert.True(t, ok)
}
