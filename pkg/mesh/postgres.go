package mesh

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Dial connects to a database of another container, as the user, or whom the
// secret is for.
func Dial(ctx context.Context, address, caFile, database, user string, secrets secret.Source, name string) (*pgx.Conn, error) {
	password, err := secrets.Lookup(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reading secret %s: %w", name, err)
	}
	return connectAs(ctx, DSN(address, caFile, "", database), password.Username(user), password.Reveal())
}

// SchemaOf is where the tables of a database are.
func SchemaOf(name string) string {
	if name == DatabaseMetadata {
		return MetadataSchema
	}
	return "public"
}

// PostgresSettings are for many small rows on a machine that also does other
// things. None of them is about durability, which has PostgreSQL's defaults.
func PostgresSettings() map[string]string {
	return map[string]string{
		"shared_buffers": "512MB", // the indexes' hot pages: 128 MB, the default, are written out and read in again
		"max_wal_size":   "4GB",   // fewer checkpoints, after each of which every page goes to the WAL whole
		// A policy's job of TimescaleDB is a worker; the default of 8 for all of
		// PostgreSQL is too few. Without TimescaleDB its settings mean nothing.
		"max_worker_processes":               "24",
		"timescaledb.max_background_workers": "12",
		"timescaledb.telemetry_level":        "off",
	}
}
