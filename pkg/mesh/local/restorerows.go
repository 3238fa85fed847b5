package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// RoleRestore adds the rows of a backup and owns nothing. It is there during a restore.
const RoleRestore = "f2mesh_restore"

// rows fills the databases. Tables, functions, owners and privileges are those that this
// program makes; of the backup are rows alone, which a role without rights adds.
func (l *loader) rows(ctx context.Context, cluster *postgres.Cluster) (err error) {
	super, err := l.Superuser(ctx, mesh.DatabaseAny)
	if err != nil {
		return err
	}
	defer func() { _ = super.Close(context.WithoutCancel(ctx)) }()
	password := credential.Generate()
	if err := mesh.Execute(ctx, super, "CREATE ROLE "+RoleRestore+" LOGIN"); err != nil {
		return err
	}
	if err := postgres.SetPassword(ctx, super, RoleRestore, password); err != nil {
		return err
	}
	for _, d := range l.archive.Manifest.Databases {
		if err := l.database(ctx, cluster, &d, password); err != nil {
			return fmt.Errorf("restoring database %s: %w", d.Database, err)
		}
		fmt.Fprintf(l.out, "restored database %s\n", d.Database)
	}
	return mesh.Execute(ctx, super, "DROP ROLE "+RoleRestore)
}

func (l *loader) database(ctx context.Context, cluster *postgres.Cluster, want *postgres.Census, password string) (err error) {
	super, err := l.Superuser(ctx, want.Database)
	if err != nil {
		return err
	}
	defer func() { _ = super.Close(context.WithoutCancel(ctx)) }()
	owner, err := l.make(ctx, super, want)
	if err != nil {
		return err
	}
	defer func() { _ = owner.Close(context.WithoutCancel(ctx)) }()
	if err := mesh.Execute(ctx, super, "GRANT CONNECT ON DATABASE "+want.Database+" TO "+RoleRestore); err != nil {
		return err
	}
	rows, err := pgx.Connect(ctx, cluster.ConnString(RoleRestore, password, want.Database))
	if err != nil {
		return fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = rows.Close(context.WithoutCancel(ctx)) }()
	if err := l.fill(ctx, postgres.NewLoader(super, owner, rows, mesh.SchemaOf(want.Database)), want); err != nil {
		return err
	}
	return finish(ctx, super, want.Database)
}

// make makes a database's tables as those of the backup were, and connects as their
// owner. What is newer of them comes with the start of the mesh.
func (l *loader) make(ctx context.Context, super *pgx.Conn, want *postgres.Census) (owner *pgx.Conn, err error) {
	if want.Database == mesh.DatabaseMetadata {
		if err := fleet.CreateSchema(ctx, super, mesh.MetadataSchema); err != nil {
			return nil, err
		}
		return l.Superuser(ctx, want.Database)
	}
	if want.Database == mesh.DatabaseTelemetry {
		if err := mesh.PrepareTelemetry(ctx, super); err != nil {
			return nil, err
		}
	}
	migrate, ok := l.tables[want.Database]
	if !ok {
		return nil, errors.New("unknown database")
	}
	role := map[string]string{mesh.DatabaseTelemetry: mesh.RoleWriter, mesh.DatabaseRegistry: mesh.RoleRegistrar}[want.Database]
	store := secret.NewStore(l.Secrets.Chain, slog.New(slog.DiscardHandler))
	pool, err := database.Open(ctx, l.DSN(role, want.Database), secret.Credential{Store: store, Password: secretOf(role)})
	if err != nil {
		return nil, fmt.Errorf("opening the database as its owner: %w", err)
	}
	defer pool.Close()
	if err := migrate(ctx, pool, want.Migration, l.Log); err != nil {
		return nil, err
	}
	return pool.Dedicated(ctx)
}

// secretOf is the name of the secret that a role of PostgreSQL logs in with.
func secretOf(role string) string {
	for _, c := range credential.Of(credential.Postgres) {
		if c.User == role {
			return c.Name
		}
	}
	return ""
}

func (l *loader) fill(ctx context.Context, to *postgres.Loader, want *postgres.Census) error {
	made, err := to.Prepare(ctx, want.Tables)
	if err != nil {
		return err
	}
	for _, one := range made {
		fmt.Fprintf(l.out, "  %s is not f2mesh's: it has its rows, but no indexes, rules and privileges\n", one)
	}
	for i := range want.Tables {
		t := &want.Tables[i]
		var n int64
		err := l.archive.Part(mesh.RowsPart(want.Database, t), func(r io.Reader) (err error) {
			n, err = to.Load(ctx, t, r)
			return err
		})
		if err != nil {
			return err
		}
		if n != want.Rows[t.String()] && !t.Aggregate {
			return fmt.Errorf("table %s has %d rows after the restore, and had %d", t, n, want.Rows[t.String()])
		}
	}
	return errors.Join(to.Continue(ctx, want.Sequences), to.Close(ctx))
}

// finish makes what depends on rows, or would have changed them.
func finish(ctx context.Context, super *pgx.Conn, name string) error {
	switch name {
	case mesh.DatabaseMetadata:
		return mesh.PrepareMetadata(ctx, super) // with the trigger that announces changes
	case mesh.DatabaseRegistry:
		return mesh.SealAudit(ctx, super)
	}
	return nil
}
