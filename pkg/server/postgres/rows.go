package postgres

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Table is a table whose rows are saved. Nothing of it but names and numbers comes
// from the database: no default, constraint, index, trigger or function.
type Table struct {
	Schema  string   `json:"schema"`
	Name    string   `json:"name"`
	Columns []Column `json:"columns"`
	// Aggregate is a continuous aggregate of TimescaleDB, of which those rows are saved
	// that nothing can be aggregated from any more.
	Aggregate bool `json:"aggregate,omitempty"`
	// from is where the rows are: the table, or what TimescaleDB has below the aggregate.
	from string
}

// Column is a column, with PostgreSQL's own name of its type.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

func (t *Table) String() string { return t.Schema + "." + t.Name }

func (t *Table) identifier() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

func (t *Table) columns() string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = pgx.Identifier{c.Name}.Sanitize()
	}
	return strings.Join(names, ", ")
}

// Sequence is how far a sequence has counted.
type Sequence struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Value  int64  `json:"value"`
}

// Census is what a database held in one snapshot.
type Census struct {
	Database  string           `json:"database"`
	Rows      map[string]int64 `json:"rows"`                // by table, with its schema
	Migration int64            `json:"migration,omitempty"` // the newest; 0: none
	Tables    []Table          `json:"tables,omitempty"`
	Sequences []Sequence       `json:"sequences,omitempty"`
}

// portable makes the text form of values the same everywhere, whatever a database's
// owner has set.
const portable = `SET client_encoding TO 'UTF8'; SET DateStyle TO 'ISO, YMD'; SET IntervalStyle TO 'postgres';
	SET TimeZone TO 'UTC'; SET extra_float_digits TO 3; SET bytea_output TO 'hex'; SET statement_timeout TO 0; SET search_path TO pg_catalog`

// migrationTable is goose's. Its rows are made by the migrations themselves.
const migrationTable = "goose_db_version"

// RowSaver saves the rows of a database as one snapshot has them.
type RowSaver struct {
	tx     pgx.Tx
	schema string
}

// NewSaver works in a transaction of a superuser, and saves what is in the schema.
func NewSaver(ctx context.Context, tx pgx.Tx, schema string) (*RowSaver, error) {
	if _, err := tx.Exec(ctx, portable); err != nil {
		return nil, fmt.Errorf("preparing to save rows: %w", err)
	}
	return &RowSaver{tx, schema}, nil
}

// depth orders tables: one comes after those that it refers to. Inherited rows are
// read with their parent's.
const tablesToSave = `
WITH RECURSIVE tables AS (
	SELECT c.oid, c.relname FROM pg_class c
	WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
	AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.relname <> $2
	AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
	AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
), depth(oid, n) AS (
	SELECT oid, 0 FROM tables
	UNION
	SELECT k.conrelid, d.n + 1 FROM depth d JOIN pg_constraint k ON k.confrelid = d.oid
	WHERE k.contype = 'f' AND k.conrelid <> k.confrelid AND d.n < 20
)
SELECT t.relname, a.attname,
	CASE WHEN ty.typnamespace = 'pg_catalog'::regnamespace THEN format_type(ty.oid, -1) ELSE 'text' END
FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_type ty ON ty.oid = a.atttypid
ORDER BY (SELECT max(n) FROM depth d WHERE d.oid = t.oid), t.relname, a.attnum`

// Tables lists what is to be saved, each behind what it refers to.
func (s *RowSaver) Tables(ctx context.Context) ([]Table, error) {
	rows, err := s.tx.Query(ctx, tablesToSave, s.schema, migrationTable)
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	var all []Table
	var table string
	var column Column
	_, err = pgx.ForEachRow(rows, []any{&table, &column.Name, &column.Type}, func() error {
		if len(all) == 0 || all[len(all)-1].Name != table {
			t := Table{Schema: s.schema, Name: table}
			t.from = t.identifier()
			all = append(all, t)
		}
		last := &all[len(all)-1]
		last.Columns = append(last.Columns, column)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	aggregates, err := s.aggregates(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing continuous aggregates: %w", err)
	}
	return append(all, aggregates...), s.noViews(ctx)
}

// noViews has PostgreSQL (from 15.8, 16.4) refuse a view that somebody puts in a
// table's place between the listing and the reading: it could call functions.
func (s *RowSaver) noViews(ctx context.Context) error {
	_, err := s.tx.Exec(ctx, `SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'`)
	return err
}

// materialized is what TimescaleDB keeps below the continuous aggregates of a schema.
const materialized = `
SELECT c.user_view_name, format('%I.%I', h.schema_name, h.table_name), format('%I.%I', raw.schema_name, raw.table_name)
FROM _timescaledb_catalog.continuous_agg c
JOIN _timescaledb_catalog.hypertable h ON h.id = c.mat_hypertable_id
JOIN _timescaledb_catalog.hypertable raw ON raw.id = c.raw_hypertable_id
WHERE c.user_view_schema = $1 ORDER BY 1`

const aggregateColumns = `
SELECT a.attname, format_type(a.atttypid, -1) FROM pg_attribute a
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`

// aggregates has the rows that are older than what they were aggregated from, and the
// one of the first bucket that is not: Load leaves out what was aggregated anew.
func (s *RowSaver) aggregates(ctx context.Context) ([]Table, error) {
	there, err := hasTimescale(ctx, s.tx)
	if err != nil || !there {
		return nil, err
	}
	rows, err := s.tx.Query(ctx, materialized, s.schema)
	if err != nil {
		return nil, err
	}
	var all []Table
	var name, from, raw string
	_, err = pgx.ForEachRow(rows, []any{&name, &from, &raw}, func() error {
		t := Table{Schema: s.schema, Name: name, Aggregate: true, from: from}
		t.from += " WHERE bucket <= COALESCE((SELECT min(time) FROM " + raw + "), 'infinity')"
		all = append(all, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range all {
		relation, _, _ := strings.Cut(all[i].from, " WHERE ")
		rows, err := s.tx.Query(ctx, aggregateColumns, relation)
		if err != nil {
			return nil, err
		}
		if all[i].Columns, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Column]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

type rowAsker interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func hasTimescale(ctx context.Context, conn rowAsker) (there bool, err error) {
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'timescaledb')").Scan(&there)
	return there, err
}

// Save writes the table's rows, compressed, in COPY's text form.
func (s *RowSaver) Save(ctx context.Context, t *Table, w io.Writer) (rows int64, err error) {
	compressed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return 0, err
	}
	tag, err := s.tx.Conn().PgConn().CopyTo(ctx, compressed, "COPY (SELECT "+t.columns()+" FROM "+t.from+") TO STDOUT")
	if err != nil {
		return 0, fmt.Errorf("saving table %s: %w", t, err)
	}
	return tag.RowsAffected(), compressed.Close()
}

// Sequences are those that were used.
func (s *RowSaver) Sequences(ctx context.Context) ([]Sequence, error) {
	rows, err := s.tx.Query(ctx, "SELECT schemaname, sequencename, last_value FROM pg_sequences WHERE schemaname = $1 AND last_value IS NOT NULL ORDER BY 2", s.schema)
	if err != nil {
		return nil, fmt.Errorf("reading sequences: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Sequence])
	if err != nil {
		return nil, fmt.Errorf("reading sequences: %w", err)
	}
	return all, nil
}

// Migration is the number of the database's newest migration, 0 if it has none.
func (s *RowSaver) Migration(ctx context.Context) (number int64, err error) {
	table := pgx.Identifier{s.schema, migrationTable}.Sanitize()
	var there bool
	if err := s.tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", table).Scan(&there); err != nil || !there {
		return 0, err
	}
	if err := s.tx.QueryRow(ctx, "SELECT COALESCE(max(version_id), 0) FROM "+table).Scan(&number); err != nil {
		return 0, fmt.Errorf("reading the number of migrations: %w", err)
	}
	return number, nil
}

// RowLoader fills the tables of a schema with saved rows.
type RowLoader struct {
	owner  *pgx.Conn // of the tables
	rows   *pgx.Conn // owns nothing
	super  *pgx.Conn
	schema string
	role   string
}

// NewLoader takes a connection of a superuser, of the tables' owner, and of a role that
// owns nothing, which gets what it takes to add rows.
func NewLoader(super, owner, rows *pgx.Conn, schema string) *RowLoader {
	return &RowLoader{owner: owner, rows: rows, super: super, schema: schema, role: rows.Config().User}
}

// Prepare makes what the schema lacks of the tables, with names and types alone: a
// fleet's own columns and tables keep their values, not their indexes and rules. It
// says what it made.
func (l *RowLoader) Prepare(ctx context.Context, tables []Table) (made []string, err error) {
	for i := range tables {
		t := &tables[i]
		if t.Schema != l.schema || t.Name == migrationTable {
			return nil, fmt.Errorf("the backup has a table %q, which no backup should have", t)
		}
		if t.Aggregate {
			continue
		}
		one, err := l.prepareTable(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("preparing table %s: %w", t, err)
		}
		made = append(made, one...)
	}
	for _, statement := range []string{
		"GRANT USAGE ON SCHEMA " + quote(l.schema) + " TO " + quote(l.role),
		"GRANT INSERT ON ALL TABLES IN SCHEMA " + quote(l.schema) + " TO " + quote(l.role),
		"GRANT UPDATE ON ALL SEQUENCES IN SCHEMA " + quote(l.schema) + " TO " + quote(l.role),
	} {
		if _, err := l.super.Exec(ctx, statement); err != nil {
			return nil, fmt.Errorf("preparing to load rows: %w", err)
		}
	}
	if _, err := l.rows.Exec(ctx, portable); err != nil {
		return nil, fmt.Errorf("preparing to load rows: %w", err)
	}
	return made, nil
}

const existingColumns = `
SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped`

// builtIn is how PostgreSQL writes the type, NULL where it has none of that name itself.
const builtIn = `SELECT pg_catalog.format_type(oid, -1) FROM pg_catalog.pg_type
WHERE oid = pg_catalog.to_regtype($1) AND typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND typtype IN ('b', 'r', 'm')`

func (l *RowLoader) prepareTable(ctx context.Context, t *Table) (made []string, err error) {
	rows, err := l.super.Query(ctx, existingColumns, t.identifier())
	if err != nil {
		return nil, err
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, name := range there {
		known[name] = true
	}
	if len(there) == 0 {
		if _, err := l.owner.Exec(ctx, "CREATE TABLE "+t.identifier()+" ()"); err != nil {
			return nil, err
		}
		made = append(made, "table "+t.String())
	}
	for _, c := range t.Columns {
		if known[c.Name] {
			continue
		}
		var kind string
		if err := l.super.QueryRow(ctx, builtIn, c.Type).Scan(&kind); err != nil {
			return nil, fmt.Errorf("column %q: type %q is not a built-in type of PostgreSQL: %w", c.Name, c.Type, err)
		}
		if _, err := l.owner.Exec(ctx, "ALTER TABLE "+t.identifier()+" ADD COLUMN "+quote(c.Name)+" "+kind); err != nil {
			return nil, err
		}
		if len(there) > 0 {
			made = append(made, "column "+c.Name+" of "+t.String())
		}
	}
	return made, nil
}

// Load adds the rows that Save wrote. Those of an aggregate come behind the tables', and
// have no place without TimescaleDB.
func (l *RowLoader) Load(ctx context.Context, t *Table, r io.Reader) (rows int64, err error) {
	into, where := t.identifier(), ""
	if t.Aggregate {
		if into, where, err = l.aggregated(ctx, t); err != nil || into == "" {
			return 0, err
		}
	}
	plain, err := gzip.NewReader(r)
	if err != nil {
		return 0, fmt.Errorf("loading table %s: %w", t, err)
	}
	tag, err := l.rows.PgConn().CopyFrom(ctx, plain, "COPY "+into+" ("+t.columns()+") FROM STDIN"+where)
	if err != nil {
		return 0, fmt.Errorf("loading table %s: %w", t, err)
	}
	return tag.RowsAffected(), nil
}

// aggregated aggregates what there is, and answers where an aggregate's rows go and which
// of them do; "" without TimescaleDB. The refresh must come first: one that sees nothing
// to aggregate from would remove what was loaded.
func (l *RowLoader) aggregated(ctx context.Context, t *Table) (into, where string, err error) {
	there, err := hasTimescale(ctx, l.super)
	if err != nil || !there {
		return "", "", err
	}
	err = l.super.QueryRow(ctx, "SELECT into_table FROM ("+materialized+") AS a(view, into_table, raw) WHERE view = $2", l.schema, t.Name).Scan(&into)
	if err != nil {
		return "", "", fmt.Errorf("looking for the continuous aggregate %s: %w", t, err)
	}
	if _, err := l.owner.Exec(ctx, "CALL public.refresh_continuous_aggregate($1::regclass, NULL, NULL)", t.identifier()); err != nil {
		return "", "", fmt.Errorf("refreshing the continuous aggregate %s: %w", t, err)
	}
	var first *time.Time
	if err := l.super.QueryRow(ctx, "SELECT min(bucket) FROM "+into).Scan(&first); err != nil {
		return "", "", fmt.Errorf("reading the continuous aggregate %s: %w", t, err)
	}
	if first != nil {
		where = " WHERE bucket < '" + first.UTC().Format(time.RFC3339Nano) + "'"
	}
	_, err = l.super.Exec(ctx, "GRANT USAGE ON SCHEMA _timescaledb_internal TO "+quote(l.role)+"; GRANT INSERT ON "+into+" TO "+quote(l.role))
	return into, where, err
}

// Continue has the sequences go on where they were, as far as they are there.
func (l *RowLoader) Continue(ctx context.Context, sequences []Sequence) error {
	for _, s := range sequences {
		name := pgx.Identifier{s.Schema, s.Name}.Sanitize()
		var there bool
		err := l.super.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1) AND relkind = 'S')", name).Scan(&there)
		if err == nil && there && s.Schema == l.schema {
			_, err = l.rows.Exec(ctx, "SELECT pg_catalog.setval($1::regclass, $2)", name, s.Value)
		}
		if err != nil {
			return fmt.Errorf("continuing sequence %s: %w", name, err)
		}
	}
	return nil
}

// Close takes back what Prepare granted.
func (l *RowLoader) Close(ctx context.Context) error {
	if _, err := l.super.Exec(ctx, "DROP OWNED BY "+quote(l.role)); err != nil {
		return fmt.Errorf("taking back what loading took: %w", err)
	}
	return nil
}
