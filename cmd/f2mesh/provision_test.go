package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSuperuserTakesNoSearchPath from the owner of a database, who could have it
// call functions of their own.
func TestSuperuserTakesNoSearchPath(t *testing.T) {
	m := startMesh(t)
	path := func(conn *pgx.Conn, err error) (path string) {
		t.Helper()
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(t.Context())) }()
		require.NoError(t, conn.QueryRow(t.Context(), "SHOW search_path").Scan(&path))
		return path
	}
	owner, err := connectPostgres(t.Context(), m.dsn("", databaseTelemetry), m.secrets, secretTimescale)
	require.NoError(t, err)
	_, err = owner.Exec(t.Context(), "ALTER DATABASE "+databaseTelemetry+" SET search_path = evil")
	require.NoError(t, err)
	require.NoError(t, owner.Close(t.Context()))

	assert.Equal(t, "pg_catalog", path(m.superuser(t.Context(), databaseTelemetry)))
	assert.Equal(t, "evil", path(connectPostgres(t.Context(), m.dsn("", databaseTelemetry), m.secrets, secretReader)), "the control")
	require.NoError(t, m.Stop(partPostgres))
	require.NoError(t, m.Start(t.Context(), partPostgres), "what provisions still works")
}

// TestAuditTrailIsSealed in a mesh that has started, and in one that starts again.
func TestAuditTrailIsSealed(t *testing.T) {
	m := startMesh(t)
	owners := func() (table, database string) {
		t.Helper()
		conn, err := m.superuser(t.Context(), databaseRegistry)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(t.Context())) }()
		require.NoError(t, conn.QueryRow(t.Context(), `
SELECT (SELECT tableowner FROM pg_tables WHERE tablename = 'audit'),
       (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database())`).Scan(&table, &database))
		return table, database
	}
	for range 2 {
		table, database := owners()
		assert.Equal(t, roleAudit, table)
		assert.Equal(t, "postgres", database)
		require.NoError(t, m.Stop(partPostgres))
		require.NoError(t, m.Start(t.Context(), partPostgres))
	}
}
