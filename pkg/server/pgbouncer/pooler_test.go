package pgbouncer_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	conf "github.com/f2mesh/f2mesh/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer/pgbouncertest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

const patience = 30 * time.Second

// The tests of a package share a cluster. Each has its own pooler, and its own
// roles where it changes them.
var (
	shared  postgrestest.Shared
	cluster *postgres.Cluster
)

func TestMain(m *testing.M) {
	os.Exit(shared.Main(m, func(ctx context.Context, c *postgres.Cluster) error {
		cluster = c
		return pgbouncertest.Prepare(ctx, c)
	}))
}

func config(t *testing.T) pgbouncer.Config {
	t.Helper()
	shared.NewDatabase(t, "") // skips where there is no PostgreSQL
	return pgbouncertest.Config(t, cluster)
}

// connect bounds the wait: a pooler may have one wait for ever.
func connect(t *testing.T, dsn string) (*pgx.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	conn, err := pgx.ConnectConfig(ctx, c)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	}
	return conn, err
}

func login(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := connect(t, dsn)
	require.NoError(t, err)
	return conn
}

// admin is the superuser, past the pooler.
func admin(t *testing.T) *pgx.Conn {
	t.Helper()
	return login(t, postgrestest.DSN(cluster, pgbouncertest.Database))
}

func exec(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := conn.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

func one[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) (value T) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&value), sql)
	return value
}

func TestSessions(t *testing.T) {
	t.Parallel()
	p := pgbouncertest.Start(t, config(t))
	conn := login(t, p.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database))
	assert.Equal(t, pgbouncertest.Login, one[string](t, conn, "SELECT session_user"), "the database knows who asks")
	assert.True(t, one[bool](t, conn, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "TLS to PostgreSQL")

	alternate := credential.Alternate(pgbouncertest.Login)
	require.NoError(t, postgres.SetPassword(t.Context(), admin(t), alternate, "of the second"))
	second := login(t, p.ConnString(alternate, "of the second", pgbouncertest.Database))
	assert.Equal(t, alternate, one[string](t, second, "SELECT session_user"), "a member of a member needs no grant")
	assert.Equal(t, pgbouncertest.Login, one[string](t, second, "SELECT current_user"), "SET role at login")
}

func TestWhoMayConnect(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	p := pgbouncertest.Start(t, cfg)
	exec(t, admin(t),
		"CREATE ROLE stranger LOGIN PASSWORD 'known'",
		"CREATE ROLE expired LOGIN PASSWORD 'known' VALID UNTIL '2020-01-01'",
		"CREATE ROLE root SUPERUSER LOGIN PASSWORD 'known'",
		"CREATE ROLE copier REPLICATION LOGIN PASSWORD 'known'",
		"CREATE ROLE group_only NOLOGIN PASSWORD 'known'",
		"CREATE ROLE bare LOGIN",
		"SET password_encryption = 'md5'", "CREATE ROLE weak LOGIN PASSWORD 'known'",
		"GRANT f2mesh_pooled TO expired, root, copier, group_only, bare, weak")
	dsn := func(user, password, database string) string { return p.ConnString(user, password, database) }
	good := dsn(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database)
	for name, address := range map[string]string{
		"wrong password":             dsn(pgbouncertest.Login, "wrong", pgbouncertest.Database),
		"no password":                dsn(pgbouncertest.Login, "", pgbouncertest.Database),
		"no such role":               dsn("nobody", "known", pgbouncertest.Database),
		"not a member":               dsn("stranger", "known", pgbouncertest.Database),
		"expired":                    dsn("expired", "known", pgbouncertest.Database),
		"superuser":                  dsn(postgres.Superuser, postgrestest.Password, pgbouncertest.Database),
		"superuser who is a member":  dsn("root", "known", pgbouncertest.Database),
		"replication":                dsn("copier", "known", pgbouncertest.Database),
		"no login":                   dsn("group_only", "known", pgbouncertest.Database),
		"role without a password":    dsn("bare", "", pgbouncertest.Database),
		"password that is not SCRAM": dsn("weak", "known", pgbouncertest.Database),
		"database not named":         dsn(pgbouncertest.Login, pgbouncertest.Password, "postgres"),
		"no TLS":                     strings.Replace(good, "sslmode=verify-full", "sslmode=disable", 1),
		"a name that is SQL":         dsn("x' OR true --", "known", pgbouncertest.Database),
	} {
		_, err := connect(t, address)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, context.DeadlineExceeded, name)
	}
	login(t, good)
	login(t, cluster.ConnString("stranger", "known", pgbouncertest.Database)) // the control: it may log in directly
}

// The console is for the pooler's own user: nobody else can log in to it.
func TestConsole(t *testing.T) {
	t.Parallel()
	p := pgbouncertest.Start(t, config(t))
	for user, password := range map[string]string{
		pgbouncertest.Login: pgbouncertest.Password, postgres.Superuser: postgrestest.Password,
		credential.Alternate(pgbouncer.User): pgbouncertest.Password, "pgbouncer": "", "nobody": "",
	} {
		_, err := connect(t, p.ConnString(user, password, "pgbouncer"))
		require.Error(t, err, user)
		require.NotErrorIs(t, err, context.DeadlineExceeded, "a stranger must not wait in a client's place")
	}
	conn, err := pgconn.Connect(t.Context(), p.ConnString(pgbouncer.User, pgbouncertest.Password, "pgbouncer"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	for _, command := range []string{"SHOW POOLS", "RELOAD"} {
		require.NoError(t, conn.Exec(t.Context(), command).Close(), "the control")
	}
}

// A password that is changed in PostgreSQL is changed for the pooler.
func TestPasswordChange(t *testing.T) {
	t.Parallel()
	p := pgbouncertest.Start(t, config(t))
	superuser := admin(t)
	exec(t, superuser, "CREATE ROLE rotating LOGIN PASSWORD 'old'", "GRANT f2mesh_pooled TO rotating")
	dsn := func(password string) string { return p.ConnString("rotating", password, pgbouncertest.Database) }
	session := login(t, dsn("old"))
	exec(t, session, "SELECT 1")

	exec(t, superuser, "ALTER ROLE rotating PASSWORD 'new'")
	_, err := connect(t, dsn("old"))
	require.ErrorContains(t, err, "SASL authentication failed", "the old one is refused at once")
	exec(t, session, "SELECT 1") // a session outlives its password, as without a pooler

	// What the pooler knew is worth nothing to PostgreSQL either.
	exec(t, superuser, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = session.Exec(ctx, "SELECT 1")
	require.Error(t, err, "no new connection to PostgreSQL with the old one")
	fresh := login(t, dsn("new"))
	require.Eventually(t, func() bool { // once server_login_retry is over
		if fresh.IsClosed() {
			fresh, err = connect(t, dsn("new"))
			require.NoError(t, err, "the new one is never refused")
		}
		_, err := fresh.Exec(t.Context(), "SELECT 1")
		return err == nil
	}, patience, 50*time.Millisecond)

	exec(t, superuser, "ALTER ROLE rotating PASSWORD NULL")
	_, err = connect(t, dsn("new"))
	require.Error(t, err, "a role whose password is taken away")
}

// Who owns a database must not be able to answer in the lookup's place, nor to
// have it run what he wrote. Not parallel: the path is the whole database's.
func TestSearchPathAttack(t *testing.T) {
	cfg := config(t)
	attacker := login(t, cluster.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database))
	superuser := admin(t)
	exec(t, superuser, "CREATE ROLE victim LOGIN PASSWORD 'of the victim'", "GRANT f2mesh_pooled TO victim", "CREATE TABLE public.trap (n int)",
		"GRANT ALL ON public.trap TO PUBLIC")
	verifier := one[string](t, superuser, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", pgbouncertest.Login)
	exec(t, attacker,
		"CREATE SCHEMA evil", "GRANT USAGE ON SCHEMA evil TO PUBLIC",
		"CREATE FUNCTION evil.lookup(text) RETURNS TABLE (username text, verifier text) LANGUAGE sql AS $$ SELECT $1, '"+verifier+"' $$",
		"CREATE VIEW evil.pg_authid AS SELECT 'victim'::name AS rolname, '"+verifier+"'::text AS rolpassword, 1::oid AS oid, true AS rolcanlogin, false AS rolsuper, false AS rolreplication, NULL::timestamptz AS rolvaliduntil",
		"GRANT SELECT ON evil.pg_authid TO PUBLIC",
		`CREATE FUNCTION evil.equal(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO public.trap VALUES (1);
			IF current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on' THEN EXECUTE 'ALTER ROLE `+pgbouncertest.Login+` SUPERUSER'; END IF;
			RETURN true; END $$`,
		"CREATE OPERATOR evil.= (leftarg = text, rightarg = text, function = evil.equal)",
		"ALTER DATABASE "+pgbouncertest.Database+" SET search_path = evil, pg_catalog, public")
	t.Cleanup(func() {
		for _, s := range []string{"ALTER DATABASE " + pgbouncertest.Database + " RESET search_path", "DROP SCHEMA evil CASCADE"} {
			_, err := attacker.Exec(context.WithoutCancel(t.Context()), s)
			assert.NoError(t, err)
		}
	})
	for name, statement := range map[string]string{
		"calling it":       "SELECT * FROM f2mesh_pgbouncer.lookup('victim')",
		"replacing it":     "CREATE OR REPLACE FUNCTION f2mesh_pgbouncer.lookup(login text) RETURNS TABLE (username text, verifier text) LANGUAGE sql AS 'SELECT 1::text, 2::text'",
		"dropping it":      "DROP SCHEMA f2mesh_pgbouncer CASCADE",
		"adding to it":     "CREATE FUNCTION f2mesh_pgbouncer.lookup(name) RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"taking the role":  "SET ROLE " + pgbouncer.User,
		"reading directly": "SELECT rolpassword FROM pg_catalog.pg_authid",
	} {
		_, err := attacker.Exec(t.Context(), statement)
		var refusal *pgconn.PgError
		require.ErrorAs(t, err, &refusal, name)
		assert.Equal(t, "42501", refusal.Code, name)
	}

	p := pgbouncertest.Start(t, cfg)
	conn := login(t, cluster.ConnString("victim", "of the victim", pgbouncertest.Database))
	assert.Equal(t, verifier, one[string](t, conn, "SELECT verifier FROM lookup('x')"), "the control: the path holds, and finds the attacker's")
	login(t, p.ConnString("victim", "of the victim", pgbouncertest.Database))
	_, err := connect(t, p.ConnString("victim", pgbouncertest.Password, pgbouncertest.Database))
	require.Error(t, err, "the attacker's password is not the victim's")

	// Preparing the database once more is a superuser's session on the same path.
	before := one[int](t, superuser, "SELECT count(*)::int FROM public.trap")
	again := login(t, postgrestest.DSN(cluster, pgbouncertest.Database))
	exec(t, again, conf.AuthSQL)
	assert.Equal(t, before, one[int](t, superuser, "SELECT count(*)::int FROM public.trap"))
	assert.False(t, one[bool](t, superuser, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) $1", pgbouncertest.Login))
	exec(t, again, "SELECT 'a'::text = 'b'::text")
	assert.Greater(t, one[int](t, superuser, "SELECT count(*)::int FROM public.trap"), before, "the control: the operator is a trap")
	exec(t, again, "ALTER ROLE "+pgbouncertest.Login+" NOSUPERUSER", "DROP TABLE public.trap")
	login(t, p.ConnString("victim", "of the victim", pgbouncertest.Database))
}

// More clients than connections wait for their turn; more than a hundred are
// refused, and let in again when others have left.
func TestExhaustion(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Settings = map[string]string{"default_pool_size": "2", "max_client_conn": "6"}
	p := pgbouncertest.Start(t, cfg)
	dsn := p.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database)
	conns := make([]*pgx.Conn, 6)
	for i := range conns {
		conns[i] = login(t, dsn)
	}
	_, err := connect(t, dsn)
	require.ErrorContains(t, err, "max_client_conn")

	var answered sync.WaitGroup
	backends := make([]int, len(conns))
	for i, conn := range conns {
		answered.Go(func() {
			assert.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_backend_pid() FROM pg_sleep(0.05)").Scan(&backends[i]))
		})
	}
	answered.Wait()
	distinct := map[int]bool{}
	for _, pid := range backends {
		distinct[pid] = true
	}
	assert.LessOrEqual(t, len(distinct), 2, "all of them, through two")
	require.NoError(t, conns[0].Close(t.Context()))
	require.Eventually(t, func() bool { _, err := connect(t, dsn); return err == nil }, patience, 20*time.Millisecond)
}

// A stop waits for transactions, a kill does not; both can be followed by a start.
func TestStopKillStart(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	p := pgbouncertest.Start(t, cfg)
	cfg.Port = p.Port()
	dsn := p.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database)
	conn := login(t, dsn)
	exec(t, conn, "CREATE TABLE kept (n int)", "BEGIN", "INSERT INTO kept VALUES (1)")
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stopped <- p.Stop(ctx)
	}()
	select {
	case err := <-stopped:
		require.NoError(t, err)
		require.Fail(t, "it did not wait for the transaction")
	case <-time.After(300 * time.Millisecond):
	}
	exec(t, conn, "COMMIT")
	require.NoError(t, <-stopped)

	p = pgbouncertest.Start(t, cfg)
	conn = login(t, dsn)
	assert.Equal(t, 1, one[int](t, conn, "SELECT count(*)::int FROM kept"))
	exec(t, conn, "BEGIN", "INSERT INTO kept VALUES (2)")
	require.NoError(t, p.Kill())
	p = pgbouncertest.Start(t, cfg)
	assert.Equal(t, cfg.Port, p.Port())
	conn = login(t, dsn)
	assert.Equal(t, 1, one[int](t, conn, "SELECT count(*)::int FROM kept"), "what was not committed is not there")
}

// The pooler's own login alternates too, by a process that did not start it.
func TestSetLogin(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	p := pgbouncertest.Start(t, cfg)
	superuser, alternate := admin(t), credential.Alternate(pgbouncer.User)
	const password = `an"other" "one`
	dsn := p.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database)
	console := p.ConnString("", "", pgbouncer.ConsoleDatabase)
	session := login(t, dsn)
	used := func() bool {
		login(t, dsn)
		return one[bool](t, superuser, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)", alternate)
	}
	require.False(t, used(), "the control")
	require.NoError(t, postgres.SetPassword(t.Context(), superuser, alternate, password))
	require.NoError(t, pgbouncer.SetLogin(t.Context(), cfg.Dir, console, alternate, password))
	// No polling: it has taken it.
	_, err := connect(t, p.ConnString(pgbouncer.User, pgbouncertest.Password, pgbouncer.ConsoleDatabase))
	require.Error(t, err, "the console is the alternate's now")
	require.Eventually(t, used, patience, 20*time.Millisecond)
	exec(t, session, "SELECT 1") // it goes on

	list := filepath.Join(cfg.Dir, "userlist.txt")
	text, err := os.ReadFile(list)
	require.NoError(t, err)
	assert.Equal(t, `"f2mesh_pgbouncer_b" "an""other"" ""one"`+"\n", string(text), "the old login is gone")

	// A call that was interrupted, before and after the pooler took the new login.
	require.NoError(t, os.WriteFile(list, append(text, `"f2mesh_pgbouncer" "`+pgbouncertest.Password+`"`+"\n"...), 0o600))
	for range 2 {
		require.NoError(t, pgbouncer.SetLogin(t.Context(), cfg.Dir, console, pgbouncer.User, pgbouncertest.Password))
		login(t, p.ConnString(pgbouncer.User, pgbouncertest.Password, pgbouncer.ConsoleDatabase))
	}

	require.NoError(t, os.WriteFile(list, text, 0o600))
	require.Error(t, pgbouncer.SetLogin(t.Context(), cfg.Dir, console, alternate, password), "the pooler knows none of the file")
	require.NoError(t, os.WriteFile(list, nil, 0o600))
	require.ErrorContains(t, pgbouncer.SetLogin(t.Context(), cfg.Dir, strings.Replace(console, "verify-full", "disable", 1), alternate, password), "SSL")

	require.NoError(t, p.Kill())
	require.NoError(t, pgbouncer.SetLogin(t.Context(), cfg.Dir, console, pgbouncer.User, pgbouncertest.Password), "without a pooler")
	require.Error(t, pgbouncer.SetLogin(t.Context(), cfg.Dir+"-of-nobody", console, alternate, password))
	cfg.User, cfg.Password = alternate, password
	p = pgbouncertest.Start(t, cfg)
	login(t, p.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database))
}

func TestPostgresMustBeOurs(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	dsn := func(p *pgbouncer.Pooler) string {
		return strings.Replace(p.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database), "verify-full", "require", 1)
	}
	other, err := identity.OpenAuthority(filepath.Join(filepath.Dir(cfg.Dir), "other"))
	require.NoError(t, err)
	login(t, dsn(pgbouncertest.Start(t, cfg)))
	cfg.CAFile = other.CAFile()
	require.NoError(t, other.IssueServer(cfg.CertFile, cfg.KeyFile, []string{"127.0.0.1"}))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = pgx.Connect(ctx, dsn(pgbouncertest.Start(t, cfg)))
	require.Error(t, err, "its certificate is not of the CA that is trusted")
}

func TestTakenPortIsAnError(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	_, text, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	pgbouncertest.Start(t, cfg)
	cfg.Port, err = strconv.Atoi(text)
	require.NoError(t, err)
	_, err = pgbouncer.Start(t.Context(), cfg)
	require.ErrorContains(t, err, "the port is in use")
}

// The pooler runs as another than root, and what it reads nobody else does.
func TestAccount(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	p := pgbouncertest.Start(t, cfg)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	require.NoError(t, err)
	assert.NotContains(t, string(status), "Uid:\t0")
	entries, err := os.ReadDir(cfg.Dir)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode(), entry.Name())
	}
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid()))
	require.NoError(t, err)
	assert.NotContains(t, string(arguments), cfg.Password)
}
