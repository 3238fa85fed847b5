package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/port"
)

const rulesFile = "../../prometheus/rules/f2mesh.yml"

// metricNames are those that the services register, also where nothing was counted yet.
func (m *testMesh) metricNames(t *testing.T) []string {
	t.Helper()
	named := regexp.MustCompile(`fqName: "([^"]+)"`)
	var names []string
	for _, s := range m.Services() {
		registry, ok := s.Gatherer.(*prometheus.Registry)
		require.True(t, ok, s.Name)
		descriptions := make(chan *prometheus.Desc, 1000)
		registry.Describe(descriptions)
		close(descriptions)
		for d := range descriptions {
			names = append(names, named.FindStringSubmatch(d.String())[1])
		}
	}
	return names
}

// unknown are the metrics in a text that nobody registers.
func unknown(names []string, text string) (all []string) {
	for _, name := range regexp.MustCompile(`\bf2mesh_[a-z_]+`).FindAllString(text, -1) {
		if !slices.Contains(names, name) {
			all = append(all, name)
		}
	}
	return all
}

// program finds one of Prometheus's programs, or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		accounttest.SkipMissing(t, fmt.Errorf("%s is not installed (tools/install prometheus): %w", name, err))
	}
	return path
}

// TestMetrics holds what is written about metrics against those that there are.
func TestMetrics(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	names := m.metricNames(t)
	require.Contains(t, names, "f2mesh_writer_dead_letters_total", "the control: counted or not")

	t.Run("names and units", func(t *testing.T) {
		for _, s := range m.Services() {
			families, err := s.Gatherer.Gather()
			require.NoError(t, err)
			problems, err := promlint.NewWithMetricFamilies(families).Lint()
			require.NoError(t, err)
			assert.Empty(t, problems, s.Name)
		}
	})
	t.Run("alert rules", func(t *testing.T) {
		rules, err := os.ReadFile(rulesFile)
		require.NoError(t, err)
		for line := range strings.Lines(string(rules)) {
			if expr, ok := strings.CutPrefix(strings.TrimSpace(line), "expr:"); ok {
				assert.Empty(t, unknown(names, expr))
			}
		}
		assert.NotEmpty(t, unknown(names, "rate(f2mesh_bridge_nonsense_total[5m])"), "the control")
	})
	t.Run("promtool", func(t *testing.T) {
		_, text := m.api(t, "/metrics", m.password(t, credential.HealthAPI))
		check := exec.CommandContext(t.Context(), program(t, "promtool"), "check", "metrics")
		check.Stdin = strings.NewReader(text)
		out, err := check.CombinedOutput()
		require.NoError(t, err, "%s", out)
		check = exec.CommandContext(t.Context(), program(t, "promtool"), "check", "metrics")
		check.Stdin = strings.NewReader("# TYPE f2mesh_bad counter\nf2mesh_bad 1\n")
		require.Error(t, check.Run(), "the control")
	})
	p := m.startPrometheus(t)
	t.Run("scraped", p.scrapes)
	t.Run("dashboards", func(t *testing.T) { m.dashboards(t, p, names) })
}

// prometheusServer is a Prometheus that scrapes a mesh.
type prometheusServer struct {
	address string
	log     *bytes.Buffer // read it only where the test fails
}

// startPrometheus has a Prometheus scrape the mesh by the password, with our rules.
func (m *testMesh) startPrometheus(t *testing.T) prometheusServer {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs(rulesFile)
	require.NoError(t, err)
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: f2mesh
    scheme: https
    tls_config: {ca_file: %q}
    basic_auth: {username: f2mesh, password_file: %q}
    static_configs: [{targets: [%q]}]
  - job_name: stranger
    scheme: https
    tls_config: {ca_file: %q}
    static_configs: [{targets: [%q]}]
`, rules, m.Authority.CAFile(), m.State.Path("secrets", credential.HealthAPI), m.Address(m.Ports().HTTP), m.Authority.CAFile(), m.Address(m.Ports().HTTP))
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	free, err := port.Pick("127.0.0.1", 0)
	require.NoError(t, err)
	p := prometheusServer{address: m.Address(free), log: new(bytes.Buffer)}
	server := exec.Command(program(t, "prometheus"), "--config.file="+file, //nolint:noctx // killed below
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.address)
	server.Stderr = p.log
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	return p
}

// answer is what Prometheus says to a query: how many series, and the value of
// the first.
func (p prometheusServer) answer(t *testing.T, expr string) (series int, value string, ok bool) {
	t.Helper()
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	ok = getJSON(t, "http://"+p.address+"/api/v1/query?query="+url.QueryEscape(expr), &answer)
	if series = len(answer.Data.Result); series > 0 {
		value = fmt.Sprint(answer.Data.Result[0].Value[1])
	}
	return series, value, ok
}

func (p prometheusServer) is(t *testing.T, expr, want string) bool {
	t.Helper()
	series, value, _ := p.answer(t, expr)
	return series == 1 && value == want
}

func (p prometheusServer) scrapes(t *testing.T) {
	eventually(t, func() bool { return p.is(t, `up{job="f2mesh"}`, "1") }, "not scraped: %s", p.log)
	eventually(t, func() bool { return p.is(t, `up{job="stranger"}`, "0") }, "the control: scraped without the password")
	eventually(t, func() bool { return p.is(t, `f2mesh_bridge_mqtt_connected`, "1") }, "no figures")
	var groups struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	eventually(t, func() bool {
		if !getJSON(t, "http://"+p.address+"/api/v1/rules", &groups) || len(groups.Data.Groups) != 1 {
			return false
		}
		for _, r := range groups.Data.Groups[0].Rules {
			require.Empty(t, r.LastError, r.Name)
			if r.Health != "ok" {
				return false
			}
		}
		return true
	}, "the rules are not evaluated")
}

func getJSON(t *testing.T, address string, into any) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	require.NoError(t, err)
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = answer.Body.Close() }()
	return answer.StatusCode == http.StatusOK && json.NewDecoder(answer.Body).Decode(into) == nil
}

// TestRules holds the alert rules against promtool and their pages.
func TestRules(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	alerts := regexp.MustCompile(`(?m)- alert: (\w+)`).FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, alerts)
	var pages []string
	for _, a := range alerts {
		page := "docs/runbooks/" + a[1] + ".md"
		assert.Contains(t, string(text), "runbook: "+page+"\n")
		content, err := os.ReadFile("../../" + page)
		require.NoError(t, err)
		for _, want := range []string{"# " + a[1] + "\n", "\n## Look\n", "\n## Fix\n"} {
			assert.Contains(t, string(content), want, page)
		}
		pages = append(pages, filepath.Base(page))
	}
	files, err := filepath.Glob("../../docs/runbooks/*.md")
	require.NoError(t, err)
	for _, file := range files {
		assert.Contains(t, pages, filepath.Base(file), "a page of no alert")
	}
	for _, args := range [][]string{
		{"check", "rules", rulesFile},
		{"check", "config", "../../prometheus/prometheus.yml"},
		{"test", "rules", "../../prometheus/f2mesh_test.yml"},
	} {
		out, err := exec.CommandContext(t.Context(), program(t, "promtool"), args...).CombinedOutput()
		assert.NoError(t, err, "%s: %s", args, out)
	}
}
