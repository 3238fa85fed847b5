package fleet

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// table collects the rows of one table by column, to be written with one
// statement over arrays.
type table struct {
	name  string
	key   string // the primary key's column
	owner string // the column that says whose a row is
	names []string
	types []string
	ints  map[int][]int     // by column, for type int
	texts map[int][]*string // by column, for all other types
	rows  int
}

// newTable takes columns as "name type"; nothing in it comes from outside.
func newTable(name, key, owner string, columns ...string) *table {
	t := &table{name: name, key: key, owner: owner, ints: map[int][]int{}, texts: map[int][]*string{}}
	for _, c := range columns {
		column, kind, _ := strings.Cut(c, " ")
		t.names = append(t.names, column)
		t.types = append(t.types, kind)
	}
	return t
}

// add adds a row: an int or a string for each column, or nil for NULL in a text.
func (t *table) add(values ...any) {
	t.rows++
	for i, v := range values {
		switch v := v.(type) {
		case int:
			t.ints[i] = append(t.ints[i], v)
		case string:
			t.texts[i] = append(t.texts[i], &v)
		case nil:
			t.texts[i] = append(t.texts[i], nil)
		}
	}
}

func (t *table) upsert(ctx context.Context, tx pgx.Tx) error {
	if t.rows == 0 {
		return nil
	}
	if err := t.refuseForeign(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, t.insertSQL(), t.arrays()...); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, fmt.Sprintf(
		`SELECT setval(pg_get_serial_sequence($1, $2), max(%[1]q)) FROM %[2]q`, t.key, t.name),
		fmt.Sprintf("%q", t.name), t.key)
	return err
}

// refuseForeign looks for rows that have one of our keys and another owner.
func (t *table) refuseForeign(ctx context.Context, tx pgx.Tx) error {
	var clashes int
	err := tx.QueryRow(ctx, fmt.Sprintf(
		`SELECT count(*) FROM %[1]s AS ours JOIN %[2]q AS theirs USING (%[3]q) WHERE theirs.%[4]q IS DISTINCT FROM ours.%[4]q`,
		t.source(), t.name, t.key, t.owner), t.arrays()...).Scan(&clashes)
	if err != nil {
		return err
	}
	if clashes > 0 {
		return fmt.Errorf("%d rows with a demo %q belong to somebody else", clashes, t.key)
	}
	return nil
}

func (t *table) insertSQL() string {
	quoted := make([]string, len(t.names))
	fresh := make([]string, len(t.names))
	old := make([]string, len(t.names))
	set := make([]string, len(t.names))
	for i, n := range t.names {
		quoted[i] = fmt.Sprintf("%q", n)
		fresh[i] = fmt.Sprintf("EXCLUDED.%q", n)
		old[i] = fmt.Sprintf("%q.%q", t.name, n)
		set[i] = quoted[i] + " = " + fresh[i]
	}
	return fmt.Sprintf(`INSERT INTO %q (%s) SELECT %s FROM %s AS ours ON CONFLICT (%q) DO UPDATE SET %s WHERE (%s) IS DISTINCT FROM (%s)`,
		t.name, list(quoted), list(quoted), t.source(), t.key, list(set), list(old), list(fresh))
}

// source is the rows as a FROM item, with typed and named columns.
func (t *table) source() string {
	arrays := make([]string, len(t.names))
	columns := make([]string, len(t.names))
	for i, n := range t.names {
		arrays[i] = fmt.Sprintf("$%d::text[]", i+1)
		columns[i] = fmt.Sprintf("c%d::%s AS %q", i, t.types[i], n)
		if t.types[i] == "int" {
			arrays[i] = fmt.Sprintf("$%d::int[]", i+1)
		}
	}
	aliases := make([]string, len(t.names))
	for i := range aliases {
		aliases[i] = fmt.Sprintf("c%d", i)
	}
	return fmt.Sprintf("(SELECT %s FROM unnest(%s) AS u(%s))", list(columns), list(arrays), list(aliases))
}

func (t *table) arrays() []any {
	arrays := make([]any, len(t.names))
	for i, kind := range t.types {
		if kind == "int" {
			arrays[i] = t.ints[i]
			continue
		}
		arrays[i] = t.texts[i]
	}
	return arrays
}

func list(items []string) string { return strings.Join(items, ", ") }
