package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
)

func (m *Parts) runPgBouncer(ctx context.Context, ready func()) error {
	cert, key := m.ServerPair()
	user, password, err := mesh.LogIn(ctx, m.Secrets, mesh.SecretPgBouncer)
	if err != nil {
		return err
	}
	ports := m.Ports()
	pooler, err := pgbouncer.Start(ctx, pgbouncer.Config{
		Dir: m.State.Path("pgbouncer"), Host: m.Cfg.Host, Port: ports.PgBouncer,
		ServerHost: m.Cfg.Host, ServerPort: ports.Postgres,
		CertFile: cert, KeyFile: key, CAFile: m.Authority.CAFile(),
		User: user, Password: password, Log: m.Log.With("service", PartPgBouncer),
	})
	if errors.Is(err, pgbouncer.ErrNotInstalled) {
		return fmt.Errorf("%w; --no-connection-pooling does without it", err)
	}
	if err != nil {
		return err
	}
	m.set(func() { m.Pooler, m.Cfg.Ports.PgBouncer = pooler, pooler.Port() })
	ready()
	return whileRunning(ctx, pooler.Done(), pooler.Err, pooler.Stop)
}

// PooledDSN addresses a database through the pooler, "" if there is none.
func (m *Parts) PooledDSN(role, database string) string {
	return m.Describe().PooledDSN(role, database)
}
