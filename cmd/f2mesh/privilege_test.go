package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

var update = flag.Bool("update", false, "write the tables in testdata anew") //nolint:gochecknoglobals // a flag

// privileges has PostgreSQL say what each role may do with a database and what is in it,
// the role's own, that of its groups and of PUBLIC alike. Objects of extensions are
// theirs, and what every role may do with PostgreSQL's own catalogue is left out.
const privileges = `
WITH roles AS (SELECT oid, rolname FROM pg_roles WHERE rolname LIKE 'f2mesh\_%'),
objects AS (
	SELECT 'database' AS kind, datname::text AS name, oid, NULL::oid AS class FROM pg_database WHERE datname = current_database()
	UNION ALL SELECT 'schema', nspname, oid, 'pg_namespace'::regclass FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema|_?timescaledb)'
	UNION ALL SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, nspname || '.' || relname, c.oid, 'pg_class'::regclass
		FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind IN ('r', 'p', 'v', 'm', 'S') AND nspname !~ '^(pg_|information_schema|_?timescaledb)'
	UNION ALL SELECT 'function', nspname || '.' || proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', p.oid, 'pg_proc'::regclass
		FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname !~ '^(pg_|information_schema|_?timescaledb)'
	-- Of PostgreSQL's own functions those that not everybody may call.
	UNION ALL SELECT 'function', nspname || '.' || proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', p.oid, 'pg_proc'::regclass
		FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
		WHERE nspname = 'pg_catalog' AND proacl IS NOT NULL AND NOT EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0)
	-- Of its tables those that not everybody may read.
	UNION ALL SELECT 'table', nspname || '.' || relname, c.oid, 'pg_class'::regclass
		FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE nspname = 'pg_catalog' AND relkind IN ('r', 'v') AND NOT EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = 0 AND privilege_type = 'SELECT')
),
wanted(kind, privilege) AS (VALUES
	('database', 'CONNECT'), ('database', 'CREATE'), ('database', 'TEMPORARY'), ('schema', 'USAGE'), ('schema', 'CREATE'),
	('table', 'SELECT'), ('table', 'INSERT'), ('table', 'UPDATE'), ('table', 'DELETE'), ('table', 'TRUNCATE'), ('table', 'REFERENCES'), ('table', 'TRIGGER'),
	('sequence', 'USAGE'), ('sequence', 'SELECT'), ('sequence', 'UPDATE'), ('function', 'EXECUTE')),
allowed AS (
	SELECT r.oid AS role, rolname, o.kind, o.name, o.oid, string_agg(privilege, ',' ORDER BY privilege) AS may
	FROM roles r CROSS JOIN objects o JOIN wanted w USING (kind)
	WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
	AND CASE o.kind
		WHEN 'database' THEN has_database_privilege(r.oid, o.oid, privilege)
		WHEN 'schema' THEN has_schema_privilege(r.oid, o.oid, privilege)
		WHEN 'sequence' THEN has_sequence_privilege(r.oid, o.oid, privilege)
		WHEN 'function' THEN has_function_privilege(r.oid, o.oid, privilege)
		ELSE has_table_privilege(r.oid, o.oid, privilege) END
	GROUP BY 1, 2, 3, 4, 5
)
SELECT rolname || ' ' || kind || ' ' || name || ' ' || may FROM allowed
UNION ALL
-- Single columns, where the table as a whole is not allowed.
SELECT rolname || ' column ' || nspname || '.' || relname || '.' || attname || ' ' || string_agg(privilege, ',' ORDER BY privilege)
FROM roles r CROSS JOIN pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES')) AS p(privilege)
WHERE nspname !~ '^(pg_|information_schema|_?timescaledb)' AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm')
AND has_column_privilege(r.oid, c.oid, attname, privilege) AND NOT has_table_privilege(r.oid, c.oid, privilege)
GROUP BY rolname, nspname, relname, attname
UNION ALL
SELECT rolname || ' owns ' || kind || ' ' || name FROM roles r JOIN objects o ON r.oid = CASE kind
	WHEN 'database' THEN (SELECT datdba FROM pg_database d WHERE d.oid = o.oid)
	WHEN 'schema' THEN (SELECT nspowner FROM pg_namespace s WHERE s.oid = o.oid)
	WHEN 'function' THEN (SELECT proowner FROM pg_proc f WHERE f.oid = o.oid)
	ELSE (SELECT relowner FROM pg_class t WHERE t.oid = o.oid) END
ORDER BY 1`

// attributes are what a role is, wherever it connects.
const attributes = `
SELECT rolname || ' is' || concat(CASE WHEN rolcanlogin THEN ' login' END, CASE WHEN rolsuper THEN ' superuser' END, CASE WHEN rolcreaterole THEN ' createrole' END,
	CASE WHEN rolcreatedb THEN ' createdb' END, CASE WHEN rolreplication THEN ' replication' END, CASE WHEN rolbypassrls THEN ' bypassrls' END,
	(SELECT string_agg(' member:' || g.rolname, '' ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid))
FROM pg_roles r WHERE rolname LIKE 'f2mesh\_%' OR rolname ~ '^postgres' ORDER BY 1`

// TestPrivileges compares what every role of PostgreSQL may do on a real mesh with a
// table, so that a privilege which somebody adds, or PostgreSQL grants to everybody, is
// seen. Alternates act as their role, and have nothing of their own.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.settled(t)
	var seen []string
	for _, name := range append(m.Describe().Databases(), mesh.DatabaseAny) {
		conn, err := m.Superuser(t.Context(), name)
		require.NoError(t, err)
		for _, query := range []string{attributes, privileges} {
			rows, err := conn.Query(t.Context(), query)
			require.NoError(t, err)
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			for _, line := range lines {
				switch {
				case query == attributes && name != mesh.DatabaseAny:
				case query == attributes:
					seen = append(seen, line)
				case !strings.HasSuffix(strings.Fields(line)[0], "_b"):
					seen = append(seen, name+": "+line)
				}
			}
		}
		require.NoError(t, conn.Close(t.Context()))
	}
	seen = append(seen, m.logIns(t)...)
	slices.Sort(seen)
	compareGolden(t, "postgres-privileges.txt", seen)

	m.sql(t, mesh.DatabaseTelemetry, "GRANT pg_read_all_data TO "+mesh.RoleReader)
	conn, err := m.Superuser(t.Context(), mesh.DatabaseMetadata)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	rows, err := conn.Query(t.Context(), privileges)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	assert.True(t, slices.ContainsFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, mesh.RoleReader+" table fleet.Device ") && strings.Contains(line, "SELECT")
	}), "the control: what a role has by way of a group is seen")
}

// logIns tries each credential on each database, with PostgreSQL and through the pooler,
// and says as whom it is there.
func (m *testMesh) logIns(t *testing.T) (lines []string) {
	t.Helper()
	for _, c := range credential.Of(credential.Postgres) {
		user, password, err := m.Secrets.LogIn(t.Context(), c.Name)
		require.NoError(t, err)
		for _, name := range append(m.Describe().Databases(), mesh.DatabaseAny, "pgbouncer") {
			for way, dsn := range map[string]string{"directly": m.DSN(user, name), "pooled": m.PooledDSN(user, name)} {
				config, err := pgx.ParseConfig(dsn)
				require.NoError(t, err)
				config.Password, config.DefaultQueryExecMode = password, pgx.QueryExecModeSimpleProtocol
				if as, err := whoAmI(t.Context(), config); err == nil {
					lines = append(lines, fmt.Sprintf("%s: %s logs in %s as %s", name, user, way, as))
				}
			}
		}
	}
	return lines
}

func whoAmI(ctx context.Context, config *pgx.ConnConfig) (who string, err error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if config.Database == "pgbouncer" {
		return "whoever looks at the console", nil
	}
	return who, conn.QueryRow(ctx, "SELECT current_user").Scan(&who)
}

// compareGolden compares lines with a table of the repository, or writes it.
func compareGolden(t *testing.T, name string, seen []string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(strings.Join(seen, "\n")+"\n"), 0o644))
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	want := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range seen {
		assert.Contains(t, want, line, "it is allowed, and %s does not have it (-update writes it)", file)
	}
	for _, line := range want {
		assert.Contains(t, seen, line, "%s has it, and it is not allowed", file)
	}
}
