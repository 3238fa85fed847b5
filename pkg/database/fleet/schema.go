package fleet

import (
	"context"
	_ "embed" // the SQL files
	"fmt"

	"github.com/jackc/pgx/v5"
)

// NotifyChannel is the channel of PostgreSQL's NOTIFY on which InstallTrigger's
// triggers announce changes.
const NotifyChannel = "f2mesh_metadata"

// NotifyAll is the payload that says any controller may be affected.
const NotifyAll = "*"

//go:embed schema.sql
var schemaSQL string

//go:embed trigger.sql
var triggerSQL string

// CreateSchema creates the metadata schema, as far as it is not there, in one
// transaction. It does not change tables that are there. Two callers at the
// same time wait for each other.
func CreateSchema(ctx context.Context, conn *pgx.Conn, schema string) error {
	return inSchema(ctx, conn, schema, "creating metadata schema", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, schemaSQL)
		return err
	})
}

// InstallTrigger makes every change of the schema's tables, by whomever, a
// notification on NotifyChannel: the affected controller's MAC as 12 lower-case
// hex digits, or NotifyAll when a template changes, a table is truncated, or
// more than 100 controllers are affected. It needs PostgreSQL 14 or later and
// the right to create functions and triggers, and can run again at any time.
func InstallTrigger(ctx context.Context, conn *pgx.Conn, schema string) error {
	return inSchema(ctx, conn, schema, "installing metadata trigger", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, triggerSQL)
		return err
	})
}

// lock serializes whoever changes the schema's tables and functions; the number
// is arbitrary and only has to be the same everywhere.
const lock = 0x66326d657368

// inSchema runs do in a transaction in which the schema exists and unqualified
// names mean its tables.
func inSchema(ctx context.Context, conn *pgx.Conn, schema, what string, do func(pgx.Tx) error) error {
	name := pgx.Identifier{schema}.Sanitize()
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lock); err != nil {
			return err
		}
		if err := createSchema(ctx, tx, schema); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SET LOCAL search_path TO "+name); err != nil {
			return err
		}
		return do(tx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// createSchema looks first: IF NOT EXISTS needs the right to create even when
// there is nothing to create.
func createSchema(ctx context.Context, tx pgx.Tx, schema string) error {
	var exists bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema).Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = tx.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{schema}.Sanitize())
	return err
}

// TriggerSQL is what InstallTrigger executes, for those who want to read it or
// run it themselves.
func TriggerSQL(schema string) string {
	return "SET search_path TO " + pgx.Identifier{schema}.Sanitize() + ";\n" + triggerSQL
}
