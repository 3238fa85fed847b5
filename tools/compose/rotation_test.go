package compose

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rotation replaces every credential while messages flow: nothing is restarted, and no message is lost.
func (e *engine) rotation(t *testing.T) {
	t.Helper()
	before, processes := e.secrets(t), e.processes()
	rows := e.rows()
	out, err := e.operator("secret", "rotate", "--all")
	require.NoError(t, err, out)
	t.Log(out)
	assert.Contains(t, out, "docker compose restart grafana", "Grafana reads its login at its start alone")
	for name, old := range before {
		now := e.secretFile(t, name)
		rotated := strings.Contains(out, "rotated "+name+":")
		assert.Equal(t, rotated, old.text != now.text, name)
		assert.Equal(t, old.inode, now.inode, "%s: containers have this file mounted", name)
		assert.Equal(t, os.FileMode(0o600), now.mode, name)
		if name != "mqtt_username" {
			assert.NotContains(t, out, old.password, name)
		}
		if rotated {
			assert.Equal(t, old.user == "", strings.HasSuffix(now.user, "_b"), name)
		}
	}
	e.noSecretIn(out)
	for _, name := range []string{"postgres_superuser_password", "timescale_superuser_password", "pgbouncer_password", "nats_sys_password"} {
		assert.Contains(t, out, "rotated "+name+":", "every credential of a server is rotated")
	}
	assert.Equal(t, processes, e.processes(), "nothing was restarted")
	e.await("writer", func() bool { return e.rows() > rows })
	e.readings()
	for name := range processes {
		require.NoError(t, e.healthy(name), name)
	}
	e.refusesOld(t, before)
	out, err = e.operator("audit", "--wait", "1m")
	require.NoError(t, err, "no message was lost: %s", out)
	out, err = e.operator("secret", "status")
	require.NoError(t, err, out)

	for _, name := range []string{"reader_user", "reader_password"} { // what Grafana reads at its next start
		text, err := os.ReadFile(filepath.Join(e.volume("grafana-config"), name))
		require.NoError(t, err)
		reader := e.secretFile(t, "postgres_reader_password")
		assert.Contains(t, []string{reader.user, reader.password}, string(text))
	}
}

// refusesOld tries the logins of before, and as a control those of now.
func (e *engine) refusesOld(t *testing.T, before map[string]secretFile) {
	t.Helper()
	for _, at := range []struct{ service, name, user, server string }{
		{"timescaledb", "timescale_password", "f2mesh_writer", "host=localhost dbname=telemetry sslrootcert=/etc/f2mesh/ca.crt"},
		{"timescaledb", "postgres_reader_password", "f2mesh_reader", "host=localhost dbname=telemetry sslrootcert=/etc/f2mesh/ca.crt"},
		{"postgres", "postgres_reader_password", "f2mesh_reader", "host=localhost dbname=metadata sslrootcert=/etc/f2mesh/ca.crt"},
		{"postgres", "postgres_password", "f2mesh_decoder", "host=localhost dbname=metadata sslrootcert=/etc/f2mesh/ca.crt"},
		{"postgres", "postgres_superuser_password", "postgres", "host=localhost dbname=metadata sslrootcert=/etc/f2mesh/ca.crt"},
		{"timescaledb", "timescale_superuser_password", "postgres", "host=localhost dbname=telemetry sslrootcert=/etc/f2mesh/ca.crt"},
		{"postgres", "pgbouncer_password", "f2mesh_pgbouncer", "host=localhost dbname=metadata sslrootcert=/etc/f2mesh/ca.crt"},
		{"timescaledb", "pgbouncer_password", "f2mesh_pgbouncer", "host=localhost dbname=telemetry sslrootcert=/etc/f2mesh/ca.crt"},
	} {
		old := before[at.name]
		out, err := e.psqlBy(at.service, old.password, at.server+" user="+old.name(at.user), "SELECT 1")
		require.Error(t, err, "%s at %s: the old one", at.name, at.service)
		assert.Contains(t, out, "authentication failed", at.name)
		now := e.secretFile(t, at.name)
		out, err = e.psqlBy(at.service, now.password, at.server+" user="+now.name(at.user), "SELECT 1")
		require.NoError(t, err, "%s at %s: the new one: %s", at.name, at.service, out)
	}
}

// secretFile is a secret file as containers see it.
type secretFile struct {
	text, user, password string
	inode                uint64
	mode                 os.FileMode
}

// name is the user that the file names, or the one that it is for without a name.
func (s secretFile) name(user string) string {
	if s.user != "" {
		return s.user
	}
	return user
}

func (e *engine) secretFile(t *testing.T, name string) (s secretFile) {
	t.Helper()
	path := filepath.Join(e.dir, "secrets", name+".txt")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	s = secretFile{text: string(data), password: strings.TrimSpace(string(data)), mode: info.Mode(), inode: info.Sys().(*syscall.Stat_t).Ino}
	if !strings.HasPrefix(s.text, "{") {
		return s
	}
	var pair struct{ Username, Password string }
	require.NoError(t, json.Unmarshal(data, &pair), name)
	s.user, s.password = pair.Username, pair.Password
	return s
}

// secrets are the files of all secrets.
func (e *engine) secrets(t *testing.T) map[string]secretFile {
	t.Helper()
	all := map[string]secretFile{}
	for _, entry := range entries(t, filepath.Join(e.dir, "secrets")) {
		name := strings.TrimSuffix(entry, ".txt")
		all[name] = e.secretFile(t, name)
	}
	return all
}

// processes are those of the services that run.
func (e *engine) processes() map[string]int {
	all := map[string]int{}
	for _, name := range e.up() {
		all[name] = e.running[name].cmd.Process.Pid
	}
	return all
}
