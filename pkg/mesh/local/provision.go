package local

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
)

// Provision makes roles, databases and the demo fleet's metadata, as far as
// they are not there.
func (m *Mesh) Provision(ctx context.Context) error {
	conn, err := m.Superuser(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := mesh.EnsureRoles(ctx, conn, m.Secrets); err != nil {
		return err
	}
	if err := mesh.EnsureDatabases(ctx, conn); err != nil {
		return err
	}
	if err := m.provisionTelemetry(ctx); err != nil {
		return err
	}
	if err := m.provisionPooler(ctx); err != nil {
		return err
	}
	return m.seed(ctx)
}

// seed puts the demo fleet into the metadata. Without one the rows are somebody's
// own, whose ids may be the demo's.
func (m *Mesh) seed(ctx context.Context) error {
	conn, err := m.Superuser(ctx, mesh.DatabaseMetadata)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := mesh.PrepareMetadata(ctx, conn); err != nil || m.Cfg.Controllers == 0 {
		return err
	}
	return fleet.Seed(ctx, conn, mesh.MetadataSchema, fleet.Demo(m.Cfg.Controllers))
}

func (m *Mesh) provisionTelemetry(ctx context.Context) error {
	conn, err := m.Superuser(ctx, mesh.DatabaseTelemetry)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return mesh.PrepareTelemetry(ctx, conn)
}

func (m *Mesh) Superuser(ctx context.Context, database string) (*pgx.Conn, error) {
	return mesh.ConnectPostgres(ctx, m.DSN("", database), m.Secrets, mesh.SecretSuperuser)
}

// DSN addresses a database of the local cluster, without a password; without a role
// too, if that comes from the credential.
func (m *Mesh) DSN(role, database string) string {
	return mesh.DSN(m.Cfg.Host, m.Ports().Postgres, m.Authority.CAFile(), role, database)
}
