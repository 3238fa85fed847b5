package main

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
)

// TestSuperuserTakesNoSearchPath from the owner of a database, who could have it
// call functions of their own.
func TestSuperuserTakesNoSearchPath(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	path := func(conn *pgx.Conn, err error) (path string) {
		t.Helper()
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(t.Context())) }()
		require.NoError(t, conn.QueryRow(t.Context(), "SHOW search_path").Scan(&path))
		return path
	}
	owner, err := mesh.ConnectPostgres(t.Context(), m.DSN("", mesh.DatabaseTelemetry), m.Secrets, mesh.SecretTimescale)
	require.NoError(t, err)
	_, err = owner.Exec(t.Context(), "ALTER DATABASE "+mesh.DatabaseTelemetry+" SET search_path = evil")
	require.NoError(t, err)
	require.NoError(t, owner.Close(t.Context()))

	assert.Equal(t, "pg_catalog", path(m.Superuser(t.Context(), mesh.DatabaseTelemetry)))
	assert.Equal(t, "evil", path(mesh.ConnectPostgres(t.Context(), m.DSN("", mesh.DatabaseTelemetry), m.Secrets, mesh.SecretReader)), "the control")
	require.NoError(t, m.Stop(local.PartPostgres))
	require.NoError(t, m.Start(t.Context(), local.PartPostgres), "what provisions still works")
}

// A mesh without the demo fleet leaves the metadata's rows alone, also those that
// have ids of the demo's.
func TestMetadataOfOnesOwn(t *testing.T) {
	t.Parallel()
	none := func(c *meshConfig) { c.Controllers = 0 }
	m := startMesh(t, none)
	conn, err := m.Superuser(t.Context(), mesh.DatabaseMetadata)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	types := func() (n int, name string) {
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*), coalesce(min("DeviceTypeName"), '') FROM fleet."DeviceType"`).Scan(&n, &name))
		return n, name
	}
	n, _ := types()
	require.Zero(t, n)
	_, err = conn.Exec(t.Context(), `INSERT INTO fleet."DeviceType" ("DeviceTypeId", "DeviceTypeName") VALUES (1, 'Mine')`)
	require.NoError(t, err)
	require.NoError(t, m.Provision(t.Context()), "as the next start does")
	n, name := types()
	assert.Equal(t, 1, n)
	assert.Equal(t, "Mine", name)
	assert.DirExists(t, m.State.DevicesDir(), "where the doctor looks")
	m.Cfg.Controllers = 1
	require.Error(t, m.Provision(t.Context()), "the control: the demo's rows are in the way")
}

// TestAuditTrailIsSealed in a mesh that has started, and in one that starts again.
func TestAuditTrailIsSealed(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	owners := func() (table, database string) {
		t.Helper()
		conn, err := m.Superuser(t.Context(), mesh.DatabaseRegistry)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(t.Context())) }()
		require.NoError(t, conn.QueryRow(t.Context(), `
SELECT (SELECT tableowner FROM pg_tables WHERE tablename = 'audit'),
       (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database())`).Scan(&table, &database))
		return table, database
	}
	for range 2 {
		table, database := owners()
		assert.Equal(t, mesh.RoleAudit, table)
		assert.Equal(t, "postgres", database)
		require.NoError(t, m.Stop(local.PartPostgres))
		require.NoError(t, m.Start(t.Context(), local.PartPostgres))
	}
}
