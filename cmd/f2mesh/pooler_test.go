package main

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/services/writer"
)

// backends answers a number that the superuser sees, past the pooler.
func (m *testMesh) backends(t *testing.T, query string) (n int) {
	t.Helper()
	conn, err := m.Superuser(t.Context(), mesh.DatabaseTelemetry)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	require.NoError(t, conn.QueryRow(t.Context(), query).Scan(&n))
	return n
}

// listening finds the decoder's session.
const listening = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN f2mesh_metadata'"

// TestPooled sees which connections go through the pooler.
func TestPooled(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	tr := startTraffic(t, m.device(t, mac))
	require.Eventually(t, func() bool { return tr.count() > 100 }, time.Minute, 20*time.Millisecond)
	tr.finish(t, m)
	through := m.clients(t)
	assert.Positive(t, through[mesh.DatabaseTelemetry+"/"+mesh.RoleWriter], "rows")
	assert.Positive(t, through[mesh.DatabaseMetadata+"/"+mesh.RoleDecoder], "metadata")
	assert.Zero(t, through[mesh.DatabaseTelemetry+"/"+mesh.RoleReader], "people")
	assert.Equal(t, 1, m.backends(t, listening))

	// Without the pooler the services are not ready, and LISTEN goes on.
	require.NoError(t, m.Stop(local.PartPgBouncer))
	for _, service := range []string{local.PartWriter, local.PartDecoder} {
		ready, cause := m.ready(t, service)
		assert.False(t, ready, "%s: %s", service, cause)
	}
	assert.Equal(t, 1, m.backends(t, listening))
	require.NoError(t, m.Start(t.Context(), local.PartPgBouncer))
	for _, service := range []string{local.PartWriter, local.PartDecoder} {
		eventually(t, func() bool { ready, _ := m.ready(t, service); return ready }, "%s is not ready", service)
	}
}

// clients counts those of the pooler, by database and user.
func (m *testMesh) clients(t *testing.T) map[string]int {
	t.Helper()
	user, password, err := mesh.LogIn(t.Context(), m.Secrets, mesh.SecretPgBouncer)
	require.NoError(t, err)
	config, err := pgx.ParseConfig(m.PooledDSN(user, "pgbouncer"))
	require.NoError(t, err)
	config.Password, config.DefaultQueryExecMode = password, pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	results, err := conn.PgConn().Exec(t.Context(), "SHOW CLIENTS").ReadAll()
	require.NoError(t, err)
	clients := map[string]int{}
	var database, role int
	for i, field := range results[0].FieldDescriptions {
		switch field.Name {
		case "database":
			database = i
		case "user":
			role = i
		}
	}
	for _, row := range results[0].Rows {
		clients[string(row[database])+"/"+string(row[role])]++
	}
	return clients
}

// TestPoolExhausted has others hold every connection that the pooler has for the
// writer, for longer than it lets anybody wait.
func TestPoolExhausted(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	_, password, err := mesh.LogIn(t.Context(), m.Secrets, mesh.SecretTimescale)
	require.NoError(t, err)
	tr := startTraffic(t, m.device(t, mac))
	require.Eventually(t, func() bool { return tr.count() > 100 }, time.Minute, 20*time.Millisecond)
	config, err := pgx.ParseConfig(m.PooledDSN(mesh.RoleWriter, mesh.DatabaseTelemetry))
	require.NoError(t, err)
	config.Password, config.DefaultQueryExecMode = password, pgx.QueryExecModeCacheDescribe
	const poolSize = 20
	var holders []*pgx.Conn
	defer func() {
		for _, conn := range holders {
			_ = conn.Close(context.WithoutCancel(t.Context()))
		}
	}()
	for range poolSize {
		conn, err := pgx.ConnectConfig(t.Context(), config)
		require.NoError(t, err)
		holders = append(holders, conn)
		eventually(t, func() bool { _, err := conn.Exec(t.Context(), "BEGIN"); return err == nil }, "no connection")
	}
	retries := func() float64 { return m.Figures()["f2mesh_writer_database_retries_total"] }
	before, rows := retries(), m.count(t, "SELECT count(*) FROM measurement")
	eventually(t, func() bool { return retries() > before }, "the writer was not made to wait")
	assert.Equal(t, rows, m.count(t, "SELECT count(*) FROM measurement"), "the control: nothing goes through")
	for _, conn := range holders {
		require.NoError(t, conn.Close(t.Context()))
	}
	tr.finish(t, m)
}

// TestWithoutPooling has the services go to PostgreSQL directly.
func TestWithoutPooling(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Pooling = false })
	assert.NotContains(t, m.Names(), local.PartPgBouncer)
	assert.Empty(t, writerOf(m.Parts, writer.Config{}).PooledDSN)
	tr := startTraffic(t, m.device(t, mac))
	require.Eventually(t, func() bool { return tr.count() > 100 }, time.Minute, 20*time.Millisecond)
	tr.finish(t, m)
}

// TestPoolingFlags has what a person or compose.yaml may say.
func TestPoolingFlags(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "postgres://pooler", poolingFlags{Pooling: true}.choose("postgres://pooler"))
	assert.Empty(t, poolingFlags{Pooling: true}.choose(""), "there is none")
	assert.Empty(t, poolingFlags{}.choose("postgres://pooler"), "USE_CONNECTION_POOLING=false")
	for want, c := range map[bool][]upCommand{
		true:  {{poolingFlags: poolingFlags{true}}, {poolingFlags: poolingFlags{true}, Parts: []string{local.PartPostgres, local.PartPgBouncer}}},
		false: {{}, {Parts: []string{local.PartPgBouncer}}, {poolingFlags: poolingFlags{true}, Parts: []string{local.PartPostgres, local.PartWriter}}},
	} {
		for _, one := range c {
			assert.Equal(t, want, one.pooled(), one.Parts)
		}
	}
}
