// Package postgrestest gives tests a real PostgreSQL.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// Password is the superuser's.
const Password = "only for tests"

// Start starts a cluster that lasts as long as the test. Where PostgreSQL is not
// installed the test is skipped on a laptop and fails in CI.
func Start(tb testing.TB) *postgres.Cluster {
	tb.Helper()
	cluster, err := start(tb.Context(), accounttest.TempDir(tb))
	skipMissing(tb, err)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, stop(cluster)) })
	return cluster
}

// Shared is a cluster that the tests of a package share. Main starts it.
type Shared struct {
	cluster   *postgres.Cluster
	err       error // of the start
	databases atomic.Int64
}

// Main starts the cluster, prepares it if prepare is not nil, runs the tests,
// stops it, and looks for goroutines that are left. It answers the exit code.
func (s *Shared) Main(m *testing.M, prepare func(context.Context, *postgres.Cluster) error) int {
	code, err := s.run(m, prepare)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return code
}

func (s *Shared) run(m *testing.M, prepare func(context.Context, *postgres.Cluster) error) (code int, err error) {
	dir, err := os.MkdirTemp("", "postgrestest")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // PostgreSQL's account must get through
		return 1, err
	}
	s.cluster, s.err = start(context.Background(), dir)
	if s.err == nil {
		defer func() { err = errors.Join(err, stop(s.cluster)) }()
		if prepare != nil {
			if err := prepare(context.Background(), s.cluster); err != nil {
				return 1, err
			}
		}
	}
	return m.Run(), nil
}

// NewDatabase makes a database, a copy of template if that is not empty, and
// answers how the superuser connects to it. Where PostgreSQL is not installed the
// test is skipped on a laptop and fails in CI.
func (s *Shared) NewDatabase(tb testing.TB, template string) (dsn string) {
	tb.Helper()
	skipMissing(tb, s.err)
	require.NoError(tb, s.err)
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	statement := "CREATE DATABASE " + name
	if template != "" {
		statement += " TEMPLATE " + template
	}
	admin, err := pgx.Connect(tb.Context(), DSN(s.cluster, "postgres"))
	require.NoError(tb, err)
	_, err = admin.Exec(tb.Context(), statement)
	require.NoError(tb, err)
	require.NoError(tb, admin.Close(tb.Context()))
	return DSN(s.cluster, name)
}

// DSN is how the superuser connects to a database.
func DSN(cluster *postgres.Cluster, database string) string {
	return cluster.ConnString(postgres.Superuser, Password, database)
}

func start(ctx context.Context, dir string) (*postgres.Cluster, error) {
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	if err != nil {
		return nil, err
	}
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	if err := authority.IssueServer(certificate, key, []string{"127.0.0.1", "localhost"}); err != nil {
		return nil, err
	}
	return postgres.Start(ctx, postgres.Config{
		Dir: filepath.Join(dir, "postgres"), CAFile: authority.CAFile(), CertFile: certificate, KeyFile: key,
		SuperuserPassword: Password, Preload: []string{"timescaledb"}, Log: slog.New(slog.DiscardHandler),
	})
}

func stop(cluster *postgres.Cluster) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return cluster.Stop(ctx)
}

func skipMissing(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, postgres.ErrNotInstalled) {
		accounttest.SkipMissing(tb, err)
	}
}
