package postgres

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/port"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testConfig(t *testing.T) Config {
	t.Helper()
	if _, err := find(t.Context(), ""); err != nil {
		accounttest.SkipMissing(t, err)
	}
	dir := accounttest.TempDir(t)
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	require.NoError(t, err)
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(certificate, key, []string{"127.0.0.1", "localhost"}))
	return Config{
		Dir: filepath.Join(dir, "postgres"), CAFile: authority.CAFile(), CertFile: certificate, KeyFile: key,
		SuperuserPassword: `superuser's "password`,
		Log:               slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func startCluster(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Kill()) })
	return c
}

func connect(t *testing.T, c *Cluster, cfg Config) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.ConnString(Superuser, cfg.SuperuserPassword, "postgres"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // may be killed by then
	return conn
}

func show(t *testing.T, conn *pgx.Conn, setting string) (value string) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), "SHOW "+setting).Scan(&value), setting)
	return value
}

func TestClusterIsDurableAndEncrypted(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Settings = map[string]string{"work_mem": "5MB", "cluster_name": `it's`}
	c := startCluster(t, cfg)
	conn := connect(t, c, cfg)
	for setting, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
		"ssl": "on", "password_encryption": "scram-sha-256", "listen_addresses": "127.0.0.1",
		"unix_socket_directories": "", "server_encoding": "UTF8", "lc_collate": "C.UTF-8",
		"work_mem": "5MB", "cluster_name": "it's",
	} {
		assert.Equal(t, want, show(t, conn, setting), setting)
	}
	_, err := os.Stat(filepath.Join(cfg.Dir, "superuser"))
	require.ErrorIs(t, err, os.ErrNotExist, "the password's file is gone")
}

func TestWhoMayConnect(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	c := startCluster(t, cfg)
	good := c.ConnString(Superuser, cfg.SuperuserPassword, "postgres")
	for name, address := range map[string]string{
		"wrong password": c.ConnString(Superuser, "wrong", "postgres"),
		"no password":    c.ConnString(Superuser, "", "postgres"),
		"no TLS":         strings.Replace(good, "sslmode=verify-full", "sslmode=disable", 1),
		"another host":   strings.Replace(good, "127.0.0.1", "127.0.0.2", 1),
	} {
		_, err := pgconn.Connect(t.Context(), address)
		require.Error(t, err, name)
	}
	connect(t, c, cfg)
}

func TestDataOutlastsStopAndKill(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	c := startCluster(t, cfg)
	cfg.Port = c.Port()
	conn := connect(t, c, cfg)
	_, err := conn.Exec(t.Context(), "CREATE TABLE kept (n int)")
	require.NoError(t, err)
	for n, kill := range []bool{false, true} {
		_, err := conn.Exec(t.Context(), "INSERT INTO kept VALUES ($1)", n)
		require.NoError(t, err)
		if kill {
			require.NoError(t, c.Kill())
		} else {
			stopCluster(t, c)
		}
		c = startCluster(t, cfg)
		assert.Equal(t, cfg.Port, c.Port())
		conn = connect(t, c, cfg)
	}
	var rows int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM kept").Scan(&rows))
	assert.Equal(t, 2, rows)
}

func stopCluster(t *testing.T, c *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, c.Stop(ctx))
}

// Kill ends the sessions too, in the middle of what they do.
func TestKillEndsSessions(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	c := startCluster(t, cfg)
	conn, other := connect(t, c, cfg), connect(t, c, cfg)
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT pg_sleep(60)")
		ended <- err
	}()
	require.Eventually(t, func() bool {
		var sleeping int
		err := other.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").Scan(&sleeping)
		return err == nil && sleeping == 1
	}, patience, 5*time.Millisecond)
	require.NoError(t, c.Kill())
	select {
	case err := <-ended:
		require.Error(t, err)
	case <-time.After(patience):
		require.Fail(t, "the session goes on")
	}
}

func TestAnotherPasswordIsToldAtOnce(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	c := startCluster(t, cfg)
	stopCluster(t, c)
	cfg.SuperuserPassword = "another"
	_, err := Start(t.Context(), cfg)
	require.ErrorContains(t, err, "not the one that the cluster was made with")
}

func TestTakenPortIsAnError(t *testing.T) {
	t.Parallel()
	c := startCluster(t, testConfig(t))
	cfg := testConfig(t)
	cfg.SuperuserPassword = "another"
	cfg.Port = c.Port()
	_, err := Start(t.Context(), cfg)
	require.ErrorIs(t, err, port.ErrTaken)
}

func TestFolderIsNotShared(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	startCluster(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := Start(ctx, cfg)
	require.ErrorContains(t, err, "another server")
}

// Neither statements nor values nor passwords reach the log.
func TestLogHasNoSecrets(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	cfg := testConfig(t)
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := startCluster(t, cfg)
	conn := connect(t, c, cfg)
	for _, statement := range []string{
		"CREATE ROLE r PASSWORD 'confidential' SYNTAX ERROR",
		"SELECT 'confidential'::int",
		"SELECT E'two\\nlines confidential\\nof it'::int",
		`SELECT '{"confidential": x}'::json`,
	} {
		_, err := conn.Exec(t.Context(), statement)
		var refusal *pgconn.PgError
		require.ErrorAs(t, err, &refusal)
	}
	_, err := conn.Exec(t.Context(), "SELECT 1/$1::int", 0)
	require.Error(t, err)
	stopCluster(t, c)
	assert.Contains(t, log.String(), "division by zero")
	assert.NotContains(t, log.String(), cfg.SuperuserPassword)
	assert.Contains(t, log.String(), "invalid input syntax for type integer")
	assert.NotContains(t, log.String(), "confidential")
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"no folder":      func(c *Config) { c.Dir = "" },
		"no logger":      func(c *Config) { c.Log = nil },
		"no certificate": func(c *Config) { c.CertFile = "" },
		"no password":    func(c *Config) { c.SuperuserPassword = "" },
	} {
		cfg := Config{Dir: "x", CertFile: "x", KeyFile: "x", SuperuserPassword: "x", Log: slog.New(slog.DiscardHandler)}
		require.NoError(t, cfg.validate())
		spoil(&cfg)
		require.Error(t, cfg.validate(), name)
	}
}

func TestParseLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]slog.Level{
		"LOG:  checkpoint starting: time":        slog.LevelDebug,
		"LOG:  database system is ready":         slog.LevelInfo,
		"WARNING:  there is no transaction":      slog.LevelWarn,
		"FATAL:  password authentication failed": slog.LevelWarn,
		"PANIC:  could not write to file":        slog.LevelError,
		"\tcontinued line":                       slog.LevelInfo,
	} {
		assert.Equal(t, want, parseLine(line).Level, line)
	}
}

func TestQueryOfAConnectionURL(t *testing.T) {
	t.Parallel()
	query := EncodeQuery(url.Values{"sslmode": {"verify-full"}, "application_name": {"/tmp/my mesh/a+b%20&c"}})
	config, err := pgx.ParseConfig("postgres://127.0.0.1/x?" + strings.ReplaceAll(query, "verify-full", "disable"))
	require.NoError(t, err)
	assert.Equal(t, "/tmp/my mesh/a+b%20&c", config.RuntimeParams["application_name"])
}
