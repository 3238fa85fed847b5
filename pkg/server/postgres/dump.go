package postgres

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// Target is a database of a cluster that Start started, as pg_restore
// reaches it. The password goes to it through its environment alone.
type Target struct {
	Dir            string // Config.Dir: the programs are the cluster's own
	Host           string
	Port           int
	CAFile         string
	User, Password string // a superuser's
	Database       string
}

// Restore reads what pg_dump wrote (--format=custom) into the database, which must be
// empty. Whoever could write to the dumped database can have code in it, and it runs
// as a superuser: archives of format 1 alone have one. Roles have to be there; objects
// get the owners and privileges that they had.
func (t *Target) Restore(ctx context.Context, r io.Reader) error {
	cmd, problem, err := t.command(ctx, "pg_restore", "--exit-on-error", "--dbname="+t.Database)
	if err != nil {
		return err
	}
	cmd.Stdin = r
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("restoring database %s: %w: %s", t.Database, err, lastLine(problem.String()))
	}
	return nil
}

func (t *Target) command(ctx context.Context, name string, args ...string) (*exec.Cmd, *bytes.Buffer, error) {
	programs, err := find(ctx, filepath.Join(t.Dir, "data"))
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(programs, name), append(args, "--no-password")...) //nolint:gosec // a found PostgreSQL
	cmd.Env = append(environment(),
		"PGHOST="+t.Host, "PGPORT="+strconv.Itoa(t.Port), "PGDATABASE="+t.Database,
		"PGUSER="+t.User, "PGPASSWORD="+t.Password, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+t.CAFile)
	problem := new(bytes.Buffer)
	cmd.Stderr = problem
	return cmd, problem, nil
}

// Census is what a database held in one snapshot.
type Census struct {
	Database  string           `json:"database"`
	Rows      map[string]int64 `json:"rows"`                // by table, with its schema
	Migration int64            `json:"migration,omitempty"` // the newest; 0: none
	Tables    []Table          `json:"tables,omitempty"`
	Sequences []Sequence       `json:"sequences,omitempty"`
	Roles     []string         `json:"roles,omitempty"` // of the cluster, but for PostgreSQL's own: of a dump alone
}

const listTables = `SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
	AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^(pg_toast|_timescaledb)'`

// TakeCensus counts the rows of all tables as tx sees them.
func TakeCensus(ctx context.Context, tx pgx.Tx, database string) (*Census, error) {
	c := &Census{Database: database, Rows: map[string]int64{}}
	if err := c.take(ctx, tx); err != nil {
		return nil, fmt.Errorf("counting the rows of database %s: %w", database, err)
	}
	return c, nil
}

func (c *Census) take(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, listTables)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (name pgx.Identifier, err error) {
		var schema, table string
		err = row.Scan(&schema, &table)
		return pgx.Identifier{schema, table}, err
	})
	if err != nil {
		return err
	}
	for _, table := range tables {
		var n int64
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+table.Sanitize()).Scan(&n); err != nil {
			return err
		}
		c.Rows[table[0]+"."+table[1]] = n
	}
	if rows, err = tx.Query(ctx, "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"); err != nil {
		return err
	}
	c.Roles, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}
