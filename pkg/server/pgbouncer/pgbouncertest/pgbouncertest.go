// Package pgbouncertest gives tests a real PgBouncer before a cluster of
// postgrestest.
package pgbouncertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	conf "github.com/f2mesh/f2mesh/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

// Database is the one that Prepare makes.
const Database = "telemetry"

// Login is a role that comes through the pooler, and that owns Database. It has an
// alternate; its own password is Password.
const Login = "f2mesh_writer"

// Password is that of Login and of the pooler's own role.
const Password = "only for tests of the pooler"

// Prepare makes Database and Login in the cluster, and lets poolers in.
func Prepare(ctx context.Context, cluster *postgres.Cluster) error {
	admin, err := pgx.Connect(ctx, postgrestest.DSN(cluster, "postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close(ctx) }()
	for _, role := range []string{Login, pgbouncer.User} {
		if err := postgres.EnsureRole(ctx, admin, role); err != nil {
			return err
		}
		if err := postgres.SetPassword(ctx, admin, role, Password); err != nil {
			return err
		}
	}
	if _, err := admin.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s OWNER %s", Database, Login)); err != nil {
		return err
	}
	owner, err := pgx.Connect(ctx, postgrestest.DSN(cluster, Database))
	if err != nil {
		return err
	}
	defer func() { _ = owner.Close(ctx) }()
	for _, statement := range []string{conf.AuthSQL, "GRANT f2mesh_pooled TO " + Login} {
		if _, err := owner.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// Config is that of a pooler before a prepared cluster.
func Config(tb testing.TB, cluster *postgres.Cluster) pgbouncer.Config {
	tb.Helper()
	dir := accounttest.TempDir(tb)
	authority, err := identity.OpenAuthority(filepath.Dir(cluster.CAFile()))
	require.NoError(tb, err)
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(tb, authority.IssueServer(certificate, key, []string{"127.0.0.1"}))
	return pgbouncer.Config{
		Dir: filepath.Join(dir, "pgbouncer"), ServerHost: cluster.Host(), ServerPort: cluster.Port(),
		CAFile: cluster.CAFile(), CertFile: certificate, KeyFile: key, Password: Password,
		Log: slog.New(slog.NewTextHandler(tb.Output(), nil)),
	}
}

// Start starts a pooler that lasts as long as the test, if it does not end before.
// Where PgBouncer is not installed the test is skipped on a laptop and fails in CI.
func Start(tb testing.TB, cfg pgbouncer.Config) *pgbouncer.Pooler {
	tb.Helper()
	pooler, err := pgbouncer.Start(tb.Context(), cfg)
	if errors.Is(err, pgbouncer.ErrNotInstalled) {
		accounttest.SkipMissing(tb, err)
	}
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, pooler.Kill()) })
	return pooler
}
