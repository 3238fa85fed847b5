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

	"github.com/f2mesh/f2mesh/pkg/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/credential"
	"github.com/f2mesh/f2mesh/pkg/port"
)

const rulesFile = "../../prometheus/rules/f2mesh.yml"

// metricNames are those that the services register, also where nothing was counted yet.
func (m *testMesh) metricNames(t *testing.T) []string {
	t.Helper()
	named := regexp.MustCompile(`fqName: "([^"]+)"`)
	var names []string
	for _, s := range m.running() {
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
	m := startMesh(t)
	names := m.metricNames(t)
	require.Contains(t, names, "f2mesh_writer_dead_letters_total", "the control: counted or not")

	t.Run("names and units", func(t *testing.T) {
		for _, s := range m.running() {
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
	t.Run("dashboards", func(t *testing.T) {
		files, err := filepath.Glob("../../grafana/dashboards/*.json")
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			assert.Empty(t, unknown(names, strings.Join(expressions(t, file), "\n")), file)
		}
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
	t.Run("scraped", func(t *testing.T) { m.scrape(t) })
}

// expressions are those of a dashboard's panels.
func expressions(t *testing.T, file string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var dashboard struct {
		UID, Title string
		Panels     []struct {
			Title      string
			Datasource struct{ UID string }
			Targets    []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	assert.NotEmpty(t, dashboard.UID)
	sources, err := os.ReadFile("../../grafana/provisioning/datasources/f2mesh.yaml")
	require.NoError(t, err)
	for _, p := range dashboard.Panels {
		assert.Contains(t, string(sources), "uid: "+p.Datasource.UID+"\n", p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for _, one := range p.Targets {
			require.NotEmpty(t, one.Expr, p.Title)
			all = append(all, one.Expr)
		}
	}
	return all
}

// scrape has a Prometheus scrape the mesh by the password, with our rules.
func (m *testMesh) scrape(t *testing.T) {
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
`, rules, m.authority.CAFile(), m.state.path("secrets", credential.HealthAPI), m.address(m.ports().HTTP), m.authority.CAFile(), m.address(m.ports().HTTP))
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	free, err := port.Pick("127.0.0.1", 0)
	require.NoError(t, err)
	var log bytes.Buffer
	server := exec.CommandContext(t.Context(), program(t, "prometheus"), "--config.file="+file,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+m.address(free))
	server.Stderr = &log
	require.NoError(t, server.Start())
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	query := func(expr string) string {
		return "http://" + m.address(free) + "/api/v1/query?query=" + url.QueryEscape(expr)
	}
	value := func(expr string) string {
		var answer struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if !getJSON(t, query(expr), &answer) || len(answer.Data.Result) != 1 {
			return ""
		}
		return fmt.Sprint(answer.Data.Result[0].Value[1])
	}
	eventually(t, func() bool { return value(`up{job="f2mesh"}`) == "1" }, "not scraped: %s", &log)
	eventually(t, func() bool { return value(`up{job="stranger"}`) == "0" }, "the control: scraped without the password")
	eventually(t, func() bool { return value(`f2mesh_bridge_mqtt_connected`) == "1" }, "no figures")
	var groups struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	eventually(t, func() bool {
		if !getJSON(t, "http://"+m.address(free)+"/api/v1/rules", &groups) || len(groups.Data.Groups) != 1 {
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
		for _, want := range []string{"# " + a[1] + "\n", "\n## Look\n", "\n## Mend\n"} {
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
