package compose

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSoak breaks the mesh of compose.yaml while controllers send, and has the oracle of `f2mesh soak` judge it.
// F2MESH_SOAK has other flags of f2mesh soak, for a longer run.
func TestSoak(t *testing.T) {
	t.Parallel()
	project := load(t, everything)
	e := newEngine(t, project)
	for _, name := range []string{"grafana", "prometheus", "vault", "vault-bootstrap", "simulator"} {
		delete(project.Services, name)
	}
	for _, name := range clients { // a rotation waits for them
		if s, ok := project.Services[name]; ok {
			s.Environment["F2MESH_SECRET_POLL"] = new("2s")
		}
	}
	project.Services["bridge"].Environment["BRIDGE_COMMAND_MAX_AGE"] = new("5s") // the end of a run waits for outcomes
	e.startAll("operator", "demo")
	e.publish(load(t, everything))

	flags := strings.Fields(cmp.Or(os.Getenv("F2MESH_SOAK"), "--messages=3000 --rate=200 --controllers=4 --faults=4 --seed=1 --kinds=kill,kill-broker,kill-all,restart"))
	began := time.Now()
	report, out, err := e.soak(t, flags...)
	t.Logf("%s\n%s", time.Since(began), out)
	if err != nil {
		e.showWarnings("decoder", "bridge", "writer", "nats")
	}
	require.NoError(t, err)
	assert.Zero(t, report.Messages.Lost)
	assert.Zero(t, report.Messages.Doubled)
	assert.Zero(t, report.Messages.Altered)
	assert.True(t, report.LedgerBalanced)
	assert.Positive(t, report.Messages.Acknowledged)
	assert.NotEmpty(t, report.Faults)
	for name := range project.Services {
		if s := project.Services[name]; !oneShot(&s) && e.running[name] != nil {
			e.await(name, func() bool { return e.healthy(name) == nil })
		}
	}
	e.noSecretIn(out)
	e.noSecretInLogs()
	e.losesRows(t)
}

// showWarnings shows what services of f2mesh and NATS warn of.
func (e *engine) showWarnings(services ...string) {
	for _, name := range services {
		for line := range strings.Lines(e.running[name].log.String()) {
			if strings.Contains(line, `"level":"WARN"`) || strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, "[WRN]") || strings.Contains(line, "redelivering") {
				e.t.Logf("%s: %s", name, strings.TrimSpace(line))
			}
		}
	}
}

// losesRows is the control: the database loses rows in silence, and the oracle and the ledger see it.
func (e *engine) losesRows(t *testing.T) {
	t.Helper()
	super := e.secretFile(t, "timescale_superuser_password")
	out, err := e.psqlBy("timescaledb", super.password, "host=localhost dbname=telemetry user="+super.name("postgres")+" sslrootcert=/etc/f2mesh/ca.crt",
		`CREATE FUNCTION public.lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER lose BEFORE INSERT ON public.measurement FOR EACH ROW WHEN (NEW.value = 12) EXECUTE FUNCTION public.lose()`)
	require.NoError(t, err, out)
	began := time.Now()
	report, out, err := e.soak(t, "--messages=300", "--faults=0", "--controllers=2")
	t.Logf("%s\n%s", time.Since(began), out)
	require.Error(t, err, out)
	assert.Positive(t, report.Messages.Lost, out)
	assert.False(t, report.LedgerBalanced, out)
	assert.Contains(t, out, "messages are lost")
}

// soakReport is what f2mesh soak writes for programs.
type soakReport struct {
	Messages struct {
		Acknowledged, Lost, Doubled, Altered int
	} `json:"messages"`
	LedgerBalanced bool              `json:"ledger_balanced"`
	Faults         []json.RawMessage `json:"faults"`
}

// soak runs f2mesh soak beside the containers.
func (e *engine) soak(t *testing.T, flags ...string) (report soakReport, out string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	out, _, err = e.f2mesh(append([]string{"soak", "--compose=" + e.dir, "--report=" + file}, flags...)...)
	data, missing := os.ReadFile(file)
	require.NoError(t, missing, out)
	require.NoError(t, json.Unmarshal(data, &struct {
		Run *soakReport `json:"run"`
	}{&report}))
	return report, out, err
}
