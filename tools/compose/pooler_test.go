package compose

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pooling: the services come through the pooler, or do not if they are told so.
func (e *engine) pooling(t *testing.T) {
	t.Helper()
	users := e.poolerUsers(t)
	assert.Contains(t, users, "f2mesh_decoder|metadata")
	assert.Contains(t, users, "f2mesh_writer|telemetry")
	for _, database := range []string{"metadata", "telemetry"} {
		_, err := e.psql("pgbouncer", "postgres_reader_password", "host=localhost port=6432 user=f2mesh_reader dbname="+database+" sslrootcert=/etc/pgbouncer/ca.crt", "SELECT 1")
		require.NoError(t, err, "tools beside the mesh")
	}
	_, err := e.psql("pgbouncer", "postgres_superuser_password", "host=localhost port=6432 user=postgres dbname=metadata sslrootcert=/etc/pgbouncer/ca.crt", "SELECT 1")
	require.Error(t, err, "no superuser comes through it")

	writer := e.project.Services["writer"]
	require.True(t, e.stop("writer"))
	writer.Environment["USE_CONNECTION_POOLING"] = new("false")
	e.start("writer")
	assert.NotContains(t, e.poolerUsers(t), "f2mesh_writer", "USE_CONNECTION_POOLING=false")
	e.readings()
	require.True(t, e.stop("writer"))
	writer.Environment["USE_CONNECTION_POOLING"] = new("true")
	e.start("writer")
}

// poolerUsers lists whom the pooler has as clients, and of which database.
func (e *engine) poolerUsers(t *testing.T) string {
	t.Helper()
	out, err := e.psql("pgbouncer", "pgbouncer_password", "host=localhost port=6432 user=f2mesh_pgbouncer dbname=pgbouncer sslrootcert=/etc/pgbouncer/ca.crt", "SHOW CLIENTS")
	require.NoError(t, err, out)
	var users strings.Builder
	for line := range strings.Lines(out) {
		if fields := strings.Split(line, "|"); len(fields) > 2 {
			users.WriteString(fields[1] + "|" + fields[2] + "\n")
		}
	}
	return users.String()
}

// readings waits for new ones in the table.
func (e *engine) readings() {
	e.t.Helper()
	before := e.rows()
	e.await("writer", func() bool { return e.rows() > before })
}

// psql asks a server, over TLS, in the container of a service that has the machine's
// programs.
func (e *engine) psql(service, secret, server, statement string) (string, error) {
	now := e.secretFile(e.t, secret)
	if now.user != "" { // the alternate
		server = regexp.MustCompile(`\buser=\S+`).ReplaceAllString(server, "user="+now.user)
	}
	return e.psqlBy(service, now.password, server, statement)
}

func (e *engine) psqlBy(service, password, server, statement string) (string, error) {
	s := e.running[service]
	out, err := s.inside(s.cmd.Process.Pid, []string{"PGPASSWORD=" + password},
		"psql", "-XAtq", server+" sslmode=verify-full", "-c", statement)
	return string(out), err
}
