package compose

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMesh runs compose.yaml: from nothing but what setup made to readings in the
// table, in the order, as the user, with the mounts, the networks and the health
// checks that the file has.
func TestMesh(t *testing.T) {
	t.Parallel()
	// A time zone that the image has no file for: the program brings its own.
	project := load(t, variant{profiles: []string{"*"}, settings: []string{"FLEET_ZONE=Europe/Berlin"}})
	e := newEngine(t, project)
	for _, name := range []string{"grafana", "prometheus", "vault"} {
		if standin(name) == "" {
			t.Logf("NOT RUN: %s, which this machine does not have", name)
			delete(project.Services, name)
		}
	}
	delete(project.Services, "grafana")
	for _, name := range clients { // they are waited for, once for each of their credentials
		project.Services[name].Environment["F2MESH_SECRET_POLL"] = new("2s")
	}
	e.startAll("vault-bootstrap", "operator") // a person's
	e.await("writer", func() bool { return e.rows() > 0 })
	e.segmentation(t) // no subtests: they would run outside of the engine's networks
	e.initAgain(t)
	e.pooling(t)
	e.rotation(t)
	e.secretsFromVault(t)
	e.securityCheck(t)
	e.registerAndRevoke(t)
	e.backups(t)
	for _, name := range names(project) {
		s := project.Services[name]
		if oneShot(&s) {
			continue
		}
		require.NoError(t, e.healthy(name), name)
	}
	order := e.order()
	slices.Reverse(order)
	for _, name := range order {
		s := project.Services[name]
		if !oneShot(&s) {
			assert.True(t, e.stop(name), "%s does not stop in order: %s\n%s", name, e.running[name].cmd.ProcessState, e.running[name].log.String())
		}
	}
	e.noSecretInLogs()
}

// startAll is docker compose up, without some services.
func (e *engine) startAll(except ...string) {
	e.t.Helper()
	for _, name := range e.order() {
		if slices.Contains(except, name) {
			continue
		}
		e.start(name)
		if name == "init" && !hasTimescale(e.t) {
			withoutTimescale(e.t, e.volume("timescaledb-config"))
		}
	}
}

// rows counts the readings, as the reader, over TLS.
func (e *engine) rows() int {
	out, err := e.psql("timescaledb", "postgres_reader_password",
		"host=localhost dbname=telemetry user=f2mesh_reader sslrootcert=/etc/f2mesh/ca.crt", "SELECT count(*) FROM measurement")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(out))
	require.NoError(e.t, err, out)
	return n
}

// segmentation tries to reach from each service what its networks do not have.
func (e *engine) segmentation(t *testing.T) {
	t.Helper()
	reach := func(from, to, network string, port int) error {
		s := e.running[from]
		url := "http://" + e.address(to, network).String() + ":" + strconv.Itoa(port)
		program := e.project.Services[from].HealthCheck.Test[1]
		out, err := s.inside(s.cmd.Process.Pid, nil, program, "healthcheck", "--timeout=1s", url)
		if err != nil && (strings.Contains(string(out), "unreachable") || strings.Contains(string(out), "deadline")) {
			return err
		}
		return nil // it answers, if not what was asked
	}
	require.NoError(t, reach("decoder", "postgres", "data", 5432), "the control")
	require.NoError(t, reach("decoder", "pgbouncer", "data", 6432), "the control")
	require.NoError(t, reach("simulator", "mosquitto", "devices", 8883), "the control")
	for _, from := range []string{"simulator", "bridge", "mosquitto", "nats"} {
		require.Error(t, reach(from, "postgres", "data", 5432), from)
		require.Error(t, reach(from, "timescaledb", "data", 5432), from)
		require.Error(t, reach(from, "pgbouncer", "data", 6432), from)
	}
	answer := func(from, url string) string {
		s := e.running[from]
		out, err := s.inside(s.cmd.Process.Pid, nil, e.project.Services[from].HealthCheck.Test[1], "healthcheck", url)
		require.Error(t, err)
		return string(out)
	}
	assert.Contains(t, answer("mosquitto", "http://decoder:9100/metrics"), "401", "whoever is on the network is not yet let in")
	assert.Contains(t, answer("mosquitto", "http://decoder:9100/readyz"), "401")
	if _, runs := e.running["prometheus"]; runs {
		assert.Contains(t, answer("bridge", "http://"+e.address("bridge", "mesh").String()+":9090"), "refused", "the control: nobody listens")
		assert.Contains(t, answer("bridge", "http://prometheus:9090/-/ready"), "refused", "it does not listen where the services are")
	}
	require.Error(t, reach("simulator", "nats", "mesh", 4222))
	require.Error(t, reach("postgres", "nats", "mesh", 4222))
	require.Error(t, reach("pgbouncer", "nats", "mesh", 4222))
	require.Error(t, reach("writer", "mosquitto", "devices", 8883))
}

// registerAndRevoke is the registrar's work, by command and across containers: the
// broker in its own lets a controller in, and shuts it out again.
func (e *engine) registerAndRevoke(t *testing.T) {
	t.Helper()
	const mac = "02-f2-aa-00-00-09"
	inside := func(args ...string) error {
		s := e.running["registrar"]
		out, err := s.inside(s.cmd.Process.Pid, nil, args...)
		t.Logf("%v: %s", args[:3], out)
		return err
	}
	bundle := "/state/devices/" + mac
	publish := func() error {
		return inside("/usr/bin/mosquitto_pub", "-h", "mosquitto", "-p", "8883", "-q", "1", "-t", "tele/f2-02f2aa000009/sensor-mode/J1/sensor-1",
			"-m", "{}", "--cafile", bundle+"/ca.crt", "--cert", bundle+"/device.crt", "--key", bundle+"/device.key")
	}
	require.NoError(t, inside("/opt/f2mesh/f2mesh", "device", "register", mac, "--serial-number=SN-9"))
	require.NoError(t, publish())
	require.NoError(t, inside("/opt/f2mesh/f2mesh", "device", "revoke", mac))
	require.Error(t, publish(), "revoked")
	require.NoError(t, e.healthy("simulator"), "the others go on")
}

// initAgain is `docker compose up` on a mesh that runs: what is in force stays.
func (e *engine) initAgain(t *testing.T) {
	t.Helper()
	read := func(name string) string {
		data, err := os.ReadFile(e.volume(name))
		require.NoError(t, err)
		return string(data)
	}
	files := []string{"mosquitto-config/passwords", "mosquitto-config/acl", "mosquitto-config/server.crt", "nats-config/passwords.conf", "state/pki/ca.crt", "pgbouncer-config/userlist.txt"}
	before := map[string]string{}
	for _, name := range files {
		before[name] = read(name)
	}
	e.start("init")
	for _, name := range files {
		assert.Equal(t, withoutAlternates(before[name]), withoutAlternates(read(name)), name)
	}
	if !hasTimescale(t) {
		withoutTimescale(t, e.volume("timescaledb-config"))
	}
	e.start("provision")
	require.NoError(t, e.healthy("writer"))

	// The control: a changed secret is put in force.
	secret := filepath.Join(e.dir, "secrets", "mqtt_operator_password.txt")
	old, err := os.ReadFile(secret)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(secret, []byte("another-password-of-the-operator"), 0o600))
	e.start("init")
	after := read(files[0])
	assert.Equal(t, line(before[files[0]], "bridge:"), line(after, "bridge:"))
	assert.NotEqual(t, line(before[files[0]], "operator:"), line(after, "operator:"))
	require.NoError(t, os.WriteFile(secret, old, 0o600))
	e.start("init")
}

// withoutAlternates leaves out the users who may not log in: they are locked out
// anew each time.
func withoutAlternates(file string) string {
	var kept strings.Builder
	for l := range strings.Lines(file) {
		if !strings.Contains(l, "_B_PASSWORD") {
			kept.WriteString(l)
		}
	}
	return kept.String()
}

func line(file, prefix string) string {
	for l := range strings.Lines(file) {
		if strings.HasPrefix(l, prefix) {
			return l
		}
	}
	return ""
}

// withoutTimescale lets a PostgreSQL without the extension take the file.
func withoutTimescale(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "postgresql.conf")
	info, err := os.Stat(path)
	require.NoError(t, err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var kept []string
	for l := range strings.Lines(string(data)) {
		if !strings.Contains(l, "timescaledb") {
			kept = append(kept, l)
		}
	}
	require.Less(t, len(kept), strings.Count(string(data), "\n"))
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(kept, "")), info.Mode()))
}

// noSecretInLogs looks for every secret in what every service wrote.
func (e *engine) noSecretInLogs() {
	for name, s := range e.running {
		e.noSecretIn("the log of "+name+":\n", s.log.String())
	}
}

// noSecretIn looks for every secret in texts.
func (e *engine) noSecretIn(texts ...string) {
	e.t.Helper()
	for name, secret := range e.secrets(e.t) {
		if name != "mqtt_username" {
			assert.NotContains(e.t, strings.Join(texts, "\n"), secret.password, name)
		}
	}
}
