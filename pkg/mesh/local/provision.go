package local

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
)

// Provision makes roles, databases and the demo fleet's metadata, as far as they are not there. Without a demo fleet the
// metadata are somebody's own, whose ids may be the demo's.
func (m *Parts) Provision(ctx context.Context) error {
	p := mesh.Provisioning{Description: m.Describe(), Secrets: m.Secrets, Registry: m.Cfg.Registry}
	if err := p.Run(ctx); err != nil || m.Cfg.Controllers == 0 {
		return err
	}
	conn, err := m.Superuser(ctx, mesh.DatabaseMetadata)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fleet.Seed(ctx, conn, mesh.MetadataSchema, fleet.Demo(m.Cfg.Controllers))
}

// Superuser connects to a database as the superuser.
func (m *Parts) Superuser(ctx context.Context, database string) (*pgx.Conn, error) {
	return m.Describe().Superuser(ctx, m.Secrets, database)
}

// DSN addresses a database of the local cluster, without a password; without a role
// too, if that comes from the credential.
func (m *Parts) DSN(role, database string) string { return m.Describe().DSN(role, database) }
