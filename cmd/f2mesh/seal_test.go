package main

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// TestRegistrarCannotForget what is on the audit trail, whatever it tries, and goes
// on with its work.
func TestRegistrarCannotForget(t *testing.T) {
	t.Parallel()
	cluster := postgrestest.Start(t)
	admin, err := pgx.Connect(t.Context(), postgrestest.DSN(cluster, "postgres"))
	require.NoError(t, err)
	require.NoError(t, postgres.EnsureRole(t.Context(), admin, postgres.Superuser))
	require.NoError(t, postgres.EnsureRole(t.Context(), admin, mesh.RoleRegistrar))
	const password = "only for tests"
	require.NoError(t, postgres.SetPassword(t.Context(), admin, mesh.RoleRegistrar, password))
	require.NoError(t, postgres.SetPassword(t.Context(), admin, mesh.RoleRegistrar+"_b", password))
	provision := func() {
		t.Helper()
		require.NoError(t, mesh.EnsureDatabase(t.Context(), admin, mesh.DatabaseRegistry, mesh.RoleRegistrar, []string{mesh.RoleRegistrar}))
		super, err := pgx.Connect(t.Context(), postgrestest.DSN(cluster, mesh.DatabaseRegistry))
		require.NoError(t, err)
		require.NoError(t, mesh.SealAudit(t.Context(), super))
		require.NoError(t, super.Close(t.Context()))
	}
	provision() // there is no table yet
	pool := func(user string) *pgxpool.Pool {
		t.Helper()
		p, err := pgxpool.New(t.Context(), cluster.ConnString(user, password, mesh.DatabaseRegistry))
		require.NoError(t, err)
		t.Cleanup(p.Close)
		return p
	}
	own := pool(mesh.RoleRegistrar)
	require.NoError(t, registrar.Migrate(t.Context(), own))
	event := registrar.Event{Time: time.Now(), Actor: "operator", Action: registrar.Issue}
	require.NoError(t, registrar.NewTrail(own).Record(t.Context(), event))

	attempts := []string{
		"ALTER TABLE audit DISABLE TRIGGER USER; GRANT ALL ON audit TO CURRENT_USER; DELETE FROM audit",
		"DROP TRIGGER audit_is_only_added_to ON audit; GRANT ALL ON audit TO CURRENT_USER; DELETE FROM audit",
		"CREATE OR REPLACE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
		"DROP TABLE audit CASCADE",
		"ALTER TABLE audit RENAME TO forgotten",
		"DROP SCHEMA public CASCADE",
		"ALTER DATABASE registry SET session_replication_role = replica",
		"ALTER DATABASE registry OWNER TO f2mesh_registrar",
	}
	try := func(p *pgxpool.Pool, statement string) error {
		t.Helper()
		tx, err := p.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), statement)
		require.NoError(t, tx.Rollback(t.Context()))
		return err
	}
	require.NoError(t, try(own, attempts[0]), "the control: the table's owner can")
	require.NoError(t, try(own, attempts[5]), "the control: the database's owner can")

	provision()
	provision() // again
	for _, p := range []*pgxpool.Pool{own, pool(mesh.RoleRegistrar + "_b")} {
		for _, statement := range append(attempts, "UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "TRUNCATE audit",
			"SET ROLE f2mesh_audit", "GRANT f2mesh_audit TO f2mesh_registrar") {
			var refused *pgconn.PgError
			require.ErrorAs(t, try(p, statement), &refused, statement)
			assert.Contains(t, []string{"42501", "0LP01"}, refused.Code, statement)
		}
		trail := registrar.NewTrail(p)
		require.NoError(t, trail.Record(t.Context(), event))
		require.NoError(t, registrar.Migrate(t.Context(), p))
	}
	events, err := registrar.NewTrail(own).Since(t.Context(), time.Time{}, "", 10)
	require.NoError(t, err)
	assert.Len(t, events, 3)
	require.NoError(t, admin.Close(t.Context()))
}
