package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	monitor "github.com/f2mesh/f2mesh/services/health"
)

func (m *testMesh) ready(t *testing.T, service string) (ready bool, cause string) {
	t.Helper()
	answer, err := m.js.Conn().Request(probe.ReadySubject(service), nil, 5*time.Second)
	if err != nil {
		return false, err.Error()
	}
	var r probe.Readiness
	require.NoError(t, json.Unmarshal(answer.Data, &r))
	return r.Ready, r.Cause
}

// byService are the figures that `nats micro stats` shows.
func (m *testMesh) byService(t *testing.T) map[string]map[string]float64 {
	t.Helper()
	answers, err := probe.Ask(t.Context(), m.js.Conn(), "$SRV.STATS", 0, 5*time.Second)
	require.NoError(t, err)
	found := map[string]map[string]float64{}
	for _, data := range answers {
		o, ok := probe.ParseStats(data)
		require.True(t, ok)
		found[o.Name] = o.Figures
	}
	return found
}

// api asks the health API with a password.
func (m *testMesh) api(t *testing.T, path, password string) (code int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+m.Address(m.Ports().HTTP)+path, http.NoBody)
	require.NoError(t, err)
	if password != "" {
		request.SetBasicAuth("f2mesh", password)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: m.roots(t), MinVersion: tls.VersionTLS12},
	}}
	answer, err := client.Do(request)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

// TestFiguresAgree sends a known number of messages, and asks everybody who counts.
func TestFiguresAgree(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	client := m.device(t, mac)
	const good, bad = 20, 3
	for n := range good {
		publish(t, client, fmt.Sprintf("tele/f2-%s/alarm-mode/J3/siren-1", mac), fmt.Sprintf(`{"timestamp":"2026-11-24T15:00:%02dZ","status":true}`, n))
	}
	for range bad {
		publish(t, client, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-1", mac), `no JSON at all`)
	}
	m.settled(t)
	dead := func(figures map[string]float64) (sum float64) {
		for _, stage := range []string{"bridge", "decoder", "writer"} {
			sum += figures["f2mesh_"+stage+"_dead_letters_total"]
		}
		return sum
	}
	eventually(t, func() bool { // a service counts when it has acknowledged
		own := m.Figures()
		return own["f2mesh_decoder_messages_decoded_total"] == good && own["f2mesh_writer_rows_written_total"] == good && dead(own) == bad
	}, "not all messages are counted")

	password := m.password(t, credential.HealthAPI)
	var status monitor.MeshStatus
	code, body := m.api(t, "/status", password)
	require.Equal(t, http.StatusOK, code, body)
	require.NoError(t, json.Unmarshal([]byte(body), &status))
	code, text := m.api(t, "/metrics", password)
	require.Equal(t, http.StatusOK, code)
	prometheus := parseMetrics(t, text)
	micro := map[string]float64{}
	for _, figures := range m.byService(t) {
		for name, v := range figures {
			micro[name] += v
		}
	}
	report := m.audit(t)
	require.True(t, report.Balanced())

	assert.Equal(t, uint64(good+bad), report.Total.Received, "the control: what was sent")
	for _, one := range []struct {
		counter  string
		status   float64
		expected uint64
	}{
		{"f2mesh_bridge_messages_received_total", status.Ledger.Received, report.Total.Received},
		{"f2mesh_decoder_messages_decoded_total", status.Ledger.Decoded, report.Total.Decoded},
		{"f2mesh_writer_rows_written_total", status.Ledger.Rows, report.Rows.Found},
	} {
		want := float64(one.expected)
		assert.InDelta(t, want, one.status, 0, "/status: %s", one.counter)
		assert.InDelta(t, want, micro[one.counter], 0, "nats micro stats: %s", one.counter)
		assert.InDelta(t, want, prometheus[one.counter], 0, "Prometheus: %s", one.counter)
	}
	want := float64(report.Total.DeadLettered)
	assert.InDelta(t, bad, want, 0)
	assert.InDelta(t, want, status.Ledger.Dead, 0)
	assert.InDelta(t, want, dead(micro), 0)
	assert.InDelta(t, want, dead(prometheus), 0)

	t.Run("the rest of status", func(t *testing.T) {
		assert.True(t, status.Ready, body)
		assert.NotEmpty(t, status.Certificates)
		assert.False(t, status.CRLEnds.IsZero())
		assert.NotEmpty(t, status.Streams)
		assert.NotEmpty(t, status.Secrets)
		for _, name := range append(credential.Names(credential.All()), credential.HealthAPI) {
			assert.NotContains(t, body, m.password(t, name), name)
		}
	})
	t.Run("nothing without the password", func(t *testing.T) {
		for _, path := range []string{"/status", "/readyz", "/metrics", "/debug/pprof/cmdline"} {
			for _, wrong := range []string{"", "wrong"} {
				code, _ := m.api(t, path, wrong)
				assert.Equal(t, http.StatusUnauthorized, code, "%s with %q", path, wrong)
			}
			code, _ := m.api(t, path, password)
			assert.Equal(t, http.StatusOK, code, "the control: %s", path)
		}
	})
}

// TestAlarmsAreShown raises one on a real mesh, and looks at the screen.
func TestAlarmsAreShown(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Health.Interval = 100 * time.Millisecond })
	screen := func() string {
		s, err := monitor.Observe(t.Context(), m.js, 0)
		require.NoError(t, err)
		var out strings.Builder
		_, err = s.WriteTo(&out)
		require.NoError(t, err)
		return out.String()
	}
	assert.Contains(t, screen(), "no alarm is raised")
	client := m.device(t, mac)
	for range 20 {
		publish(t, client, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-1", mac), `no JSON at all`)
	}
	eventually(t, func() bool { return strings.Contains(screen(), monitor.DeadLetters+"  decoder  health") }, "no alarm on the screen")
	assert.NotContains(t, screen(), "no alarm is raised")
	_, body := m.api(t, "/status", m.password(t, credential.HealthAPI))
	assert.Contains(t, body, `"alarm": "dead_letters_rising"`)

	require.NoError(t, m.Stop(local.PartHealth))
	assert.Contains(t, screen(), "health does not respond: its alarms are unknown")
}

// parseMetrics adds up the series of each name.
func parseMetrics(t *testing.T, text string) map[string]float64 {
	t.Helper()
	sums := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		series, number, ok := strings.Cut(line[strings.LastIndexByte(line, '}')+1:], " ")
		if series == "" {
			series = line
		}
		require.True(t, ok, line)
		value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		require.NoError(t, err, line)
		name, _, _ := strings.Cut(series, "{")
		sums[name] += value
	}
	return sums
}
