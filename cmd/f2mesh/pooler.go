package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	pgbouncerfiles "github.com/f2mesh/f2mesh/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
)

// poolingFlags choose between the two ways to PostgreSQL.
type poolingFlags struct {
	Pooling bool `help:"Connect to PostgreSQL through PgBouncer, except where a session is needed." env:"USE_CONNECTION_POOLING" default:"true" negatable:"" name:"connection-pooling"`
}

// choose answers the DSN of the pooler, or none if it is not to be used.
func (f poolingFlags) choose(pooledDSN string) string {
	if !f.Pooling {
		return ""
	}
	return pooledDSN
}

func (m *localMesh) runPgBouncer(ctx context.Context, ready func()) error {
	cert, key := m.serverPair()
	user, password, err := logIn(ctx, m.secrets, secretPgBouncer)
	if err != nil {
		return err
	}
	ports := m.ports()
	pooler, err := pgbouncer.Start(ctx, pgbouncer.Config{
		Dir: m.state.path("pgbouncer"), Host: m.cfg.Host, Port: ports.PgBouncer,
		ServerHost: m.cfg.Host, ServerPort: ports.Postgres,
		CertFile: cert, KeyFile: key, CAFile: m.authority.CAFile(),
		User: user, Password: password, Log: m.log.With("service", partPgBouncer),
	})
	if errors.Is(err, pgbouncer.ErrNotInstalled) {
		return fmt.Errorf("%w; --no-connection-pooling does without it", err)
	}
	if err != nil {
		return err
	}
	m.set(func() { m.pooler, m.cfg.Ports.PgBouncer = pooler, pooler.Port() })
	ready()
	return whileRunning(ctx, pooler.Done(), pooler.Err, pooler.Stop)
}

// provisionPooler lets services through a pooler to the databases, whether or not
// one runs.
func (m *localMesh) provisionPooler(ctx context.Context) error {
	for database, role := range map[string]string{databaseMetadata: roleDecoder, databaseTelemetry: roleWriter} {
		conn, err := m.superuser(ctx, database)
		if err != nil {
			return err
		}
		err = letThrough(ctx, conn, role)
		_ = conn.Close(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
	}
	return nil
}

// letThrough has the pooler look its clients up in the database, and the roles be
// among them. conn is a superuser's.
func letThrough(ctx context.Context, conn *pgx.Conn, roles ...string) error {
	return execute(ctx, conn, pgbouncerfiles.AuthSQL, "GRANT "+rolePooled+" TO "+strings.Join(roles, ", "))
}

// pooledDSN addresses a database through the pooler, "" if there is none.
func (m *localMesh) pooledDSN(role, database string) string {
	return localPooledDSN(m.cfg.Host, m.ports().PgBouncer, m.authority.CAFile(), role, database)
}

func localPooledDSN(host string, port int, caFile, role, database string) string {
	if port == 0 {
		return ""
	}
	return localDSN(host, port, caFile, role, database)
}
