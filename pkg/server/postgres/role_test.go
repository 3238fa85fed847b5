package postgres

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func logInAs(t *testing.T, c *Cluster, user, password, database string) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.ConnString(user, password, database))
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // may be ended by then
	}
	return conn, err
}

func TestAlternateRole(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	c := startCluster(t, cfg)
	admin := connect(t, c, cfg)
	for range 2 { // the second time changes nothing
		require.NoError(t, EnsureRole(t.Context(), admin, "w"))
	}
	_, err := admin.Exec(t.Context(), "CREATE DATABASE d OWNER w")
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "REVOKE ALL ON DATABASE d FROM PUBLIC")
	require.NoError(t, err)
	_, err = logInAs(t, c, "w_b", "", "d")
	require.True(t, Refused(err), "no password yet: %v", err)

	require.NoError(t, SetPassword(t.Context(), admin, "w", "first"))
	require.NoError(t, SetPassword(t.Context(), admin, "w_b", "second ü"))
	first, err := logInAs(t, c, "w", "first", "d")
	require.NoError(t, err)
	second, err := logInAs(t, c, "w_b", "second ü", "d")
	require.NoError(t, err)
	_, err = first.Exec(t.Context(), "CREATE SCHEMA s")
	require.NoError(t, err)
	_, err = second.Exec(t.Context(), "CREATE TABLE s.t (n int)")
	require.NoError(t, err)
	_, err = first.Exec(t.Context(), "ALTER TABLE s.t ADD m int")
	require.NoError(t, err, "what the alternate makes is the role's")

	n, err := Sessions(t.Context(), admin, "w")
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	require.NoError(t, SetPassword(t.Context(), admin, "w", ""))
	_, err = logInAs(t, c, "w", "first", "d")
	require.True(t, Refused(err), "%v", err)
	require.Eventually(t, func() bool {
		n, err := Sessions(t.Context(), admin, "w")
		return err == nil && n == 0
	}, patience, 5*time.Millisecond)
	require.Error(t, first.Ping(t.Context()), "its session is ended")
	require.NoError(t, second.Ping(t.Context()), "the alternate's is not")
}

// PostgreSQL makes the same of a password itself: clients need not know who did.
func TestPasswordNeverReachesTheServer(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	cfg := testConfig(t)
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Settings = map[string]string{"log_statement": "all"}
	c := startCluster(t, cfg)
	admin := connect(t, c, cfg)
	require.NoError(t, EnsureRole(t.Context(), admin, "w"))
	require.NoError(t, SetPassword(t.Context(), admin, "w", "confidential"))
	_, err := logInAs(t, c, "w", "confidential", "postgres")
	require.NoError(t, err)
	err = SetPassword(t.Context(), admin, "stranger", "confidential")
	require.ErrorContains(t, err, "SQLSTATE 42704")
	assert.NotContains(t, err.Error(), "SCRAM")
	stopCluster(t, c)
	assert.Contains(t, log.String(), "ALTER ROLE", "the control: statements are logged")
	assert.NotContains(t, log.String(), "confidential")
}

// PgBouncer keeps a key of each client that fits the verifier of its login: a start of the
// mesh, which sets all passwords, must not change what is right.
func TestSamePasswordKeepsItsVerifier(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	c := startCluster(t, cfg)
	admin := connect(t, c, cfg)
	require.NoError(t, EnsureRole(t.Context(), admin, "w"))
	verifier := func() (v string) {
		require.NoError(t, admin.QueryRow(t.Context(), "SELECT rolpassword FROM pg_authid WHERE rolname = 'w'").Scan(&v))
		return v
	}
	require.NoError(t, SetPassword(t.Context(), admin, "w", "first ü"))
	first := verifier()
	require.NoError(t, SetPassword(t.Context(), admin, "w", "first ü"))
	assert.Equal(t, first, verifier())
	require.NoError(t, SetPassword(t.Context(), admin, "w", "second"))
	assert.NotEqual(t, first, verifier(), "the control")
	_, err := logInAs(t, c, "w", "second", "postgres")
	require.NoError(t, err)

	_, err = admin.Exec(t.Context(), "ALTER ROLE w PASSWORD 'third'") // PostgreSQL's own verifier
	require.NoError(t, err)
	own := verifier()
	require.NoError(t, SetPassword(t.Context(), admin, "w", "third"))
	assert.Equal(t, own, verifier())
	require.NoError(t, SetPassword(t.Context(), admin, "w", ""))
	require.NoError(t, SetPassword(t.Context(), admin, "w", "third"))
	_, err = logInAs(t, c, "w", "third", "postgres")
	require.NoError(t, err, "a locked role gets its password back")
}
