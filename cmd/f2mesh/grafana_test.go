package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// panel is one of a Grafana dashboard, as far as it asks for data. That Grafana
// takes the files as a whole is tested in tools/compose.
type panel struct {
	Title      string
	Datasource struct{ UID string }
	Targets    []struct{ Expr, RawSQL string }
}

// panels are those of all dashboards, by file and title.
func panels(t *testing.T) map[string]panel {
	t.Helper()
	files, err := filepath.Glob("../../grafana/dashboards/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	all := map[string]panel{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var dashboard struct {
			UID    string
			Panels []panel
		}
		require.NoError(t, json.Unmarshal(text, &dashboard))
		assert.NotEmpty(t, dashboard.UID, file)
		for _, p := range dashboard.Panels {
			all[filepath.Base(file)+": "+p.Title] = p
		}
	}
	return all
}

// dashboards has Prometheus and PostgreSQL answer what the panels ask them.
func (m *testMesh) dashboards(t *testing.T, p prometheusServer, names []string) {
	t.Helper()
	sources, err := os.ReadFile("../../grafana/provisioning/datasources/f2mesh.yaml")
	require.NoError(t, err)
	m.publishOneOfEach(t)
	for title, one := range panels(t) {
		assert.Contains(t, string(sources), "uid: "+one.Datasource.UID+"\n", title)
		require.NotEmpty(t, one.Targets, title)
		for _, target := range one.Targets {
			if one.Datasource.UID == "readings" {
				rows, err := m.selected(t, target.RawSQL)
				require.NoError(t, err, title)
				assert.NotZero(t, rows, "%s shows nothing", title)
				continue
			}
			require.NotEmpty(t, target.Expr, title)
			assert.Empty(t, unknown(names, target.Expr), title)
			_, _, ok := p.answer(t, target.Expr)
			assert.True(t, ok, "%s: Prometheus refuses %s", title, target.Expr)
		}
	}
	_, _, ok := p.answer(t, "sum(rate(f2mesh_bridge_messages_received_total[1m])")
	assert.False(t, ok, "the control: a bracket is missing")
	_, err = m.selected(t, "SELECT colour FROM measurement")
	require.ErrorContains(t, err, "colour", "the control: there is no such column")
}

// publishOneOfEach has a reading and an event in the tables.
func (m *testMesh) publishOneOfEach(t *testing.T) {
	t.Helper()
	client := m.device(t, mac)
	defer client.Disconnect(100) // for the next one of the controller: the broker lets one in
	publish(t, client, "tele/f2-"+string(mac)+"/sensor-mode/J1/sensor-1", `{"data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`)
	publish(t, client, "tele/f2-"+string(mac)+"/access-control-mode/J2/strike-1", `{"status":true}`)
	eventually(t, func() bool {
		return m.count(t, "SELECT count(*) FROM measurement") > 0 && m.count(t, "SELECT count(*) FROM device_event") > 0
	}, "no rows")
}

// selected runs a panel's query as Grafana's user, and counts the rows. Grafana
// puts its own text for what begins with $__.
func (m *testMesh) selected(t *testing.T, query string) (rows int, err error) {
	t.Helper()
	query = strings.NewReplacer(
		"$__timeGroupAlias(time, $__interval)", `floor(extract(epoch FROM time) / 60) * 60 AS "time"`,
		"$__timeFilter(time)", "time BETWEEN now() - interval '3 hours' AND now() + interval '1 hour'",
	).Replace(query)
	require.NotContains(t, query, "$__")
	answer, err := m.rows.Query(t.Context(), query)
	if err != nil {
		return 0, err
	}
	defer answer.Close()
	for answer.Next() {
		rows++
	}
	return rows, answer.Err()
}
