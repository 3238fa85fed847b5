package main

import (
	"context"
	"fmt"
	"io"
	"maps"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// Backups of format 1 hold what pg_dump wrote. Whoever could make a table or a function
// in a database of that mesh could have code in it that runs here as the superuser, so
// that they take --trusted.

// dumps makes the roles of the dumps, as roles that cannot log in, and restores.
func (l *loader) dumps(ctx context.Context, cluster *postgres.Cluster) error {
	conn, err := l.superuser(ctx, databaseAny)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, d := range l.archive.Manifest.Databases {
		for _, role := range d.Roles {
			if err := ensureGroup(ctx, conn, role); err != nil {
				return err
			}
		}
		if err := l.dump(ctx, cluster, &d); err != nil {
			return err
		}
		fmt.Fprintf(l.out, "restored database %s\n", d.Database)
	}
	return nil
}

func ensureGroup(ctx context.Context, conn *pgx.Conn, role string) error {
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists); err != nil {
		return fmt.Errorf("looking for role %s: %w", role, err)
	}
	if exists {
		return nil
	}
	return execute(ctx, conn, "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" NOLOGIN")
}

func (l *loader) dump(ctx context.Context, cluster *postgres.Cluster, want *postgres.Census) error {
	user, password, err := logIn(ctx, l.secrets, secretSuperuser)
	if err != nil {
		return err
	}
	target := &postgres.Target{
		Dir: l.state.path("postgres"), Host: cluster.Host(), Port: cluster.Port(), CAFile: l.authority.CAFile(),
		User: user, Password: password, Database: want.Database,
	}
	conn, err := l.superuser(ctx, want.Database)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return aroundTimescale(ctx, conn, want.Database, func() error {
		restore := func(r io.Reader) error { return target.Restore(ctx, r) }
		if err := l.archive.Part(databasePart(want.Database), restore); err != nil {
			return err
		}
		return compareRows(ctx, conn, want)
	})
}

// aroundTimescale calls what TimescaleDB asks for before and after a restore.
func aroundTimescale(ctx context.Context, conn *pgx.Conn, database string, restore func() error) error {
	if database != databaseTelemetry {
		return restore()
	}
	if err := prepareTelemetry(ctx, conn); err != nil {
		return err
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')").Scan(&there); err != nil {
		return fmt.Errorf("looking for TimescaleDB: %w", err)
	}
	if !there {
		return restore()
	}
	// What is restored and counted here is seen as TimescaleDB shows it, compressed
	// chunks too; its jobs wait for the end, lest retention drops what is not counted yet.
	err := execute(ctx, conn, "SELECT public.timescaledb_pre_restore()", "SET timescaledb.restoring TO off")
	if err != nil {
		return err
	}
	if err := restore(); err != nil {
		return err
	}
	return execute(ctx, conn, "SELECT public.timescaledb_post_restore()")
}

// compareRows requires the rows that the manifest has.
func compareRows(ctx context.Context, conn *pgx.Conn, want *postgres.Census) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("counting rows: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	now, err := postgres.TakeCensus(ctx, tx, want.Database)
	if err != nil {
		return err
	}
	if maps.Equal(now.Rows, want.Rows) {
		return nil
	}
	return fmt.Errorf("database %s has rows %v after the restore, and had %v", want.Database, now.Rows, want.Rows)
}
