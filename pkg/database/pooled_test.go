package database

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer/pgbouncertest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

// pooler starts one that has a single connection to PostgreSQL, so that whatever
// one client leaves there the next one meets.
func pooler(t *testing.T) (direct, pooled string) {
	t.Helper()
	server := postgrestest.Start(t)
	require.NoError(t, pgbouncertest.Prepare(t.Context(), server))
	cfg := pgbouncertest.Config(t, server)
	cfg.Settings = map[string]string{"default_pool_size": "1"}
	p := pgbouncertest.Start(t, cfg)
	direct = server.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database)
	return direct, p.ConnString(pgbouncertest.Login, pgbouncertest.Password, pgbouncertest.Database)
}

// TestPooled runs statements of many clients on one connection to PostgreSQL.
func TestPooled(t *testing.T) {
	t.Parallel()
	direct, pooled := pooler(t)
	credential := secrettest.Credential(pgbouncertest.Login, pgbouncertest.Password)

	t.Run("statements", func(t *testing.T) {
		pool, err := OpenPooled(t.Context(), direct, pooled, credential)
		require.NoError(t, err)
		defer pool.Close()
		assert.Empty(t, refused(t, pool.Query, pool.QueryRow))
		// The control: pgx's own mode prepares statements by name.
		config := pool.Config()
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
		first, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
		require.NoError(t, err)
		defer func() { _ = first.Close(t.Context()) }()
		second, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
		require.NoError(t, err)
		defer func() { _ = second.Close(t.Context()) }()
		_, err = first.Exec(t.Context(), "SELECT $1::int", 1)
		require.NoError(t, err)
		_, err = second.Exec(t.Context(), "SELECT $1::int", 1)
		require.ErrorContains(t, err, "42P05", "prepared statement already exists")
	})

	t.Run("a session of its own", func(t *testing.T) {
		pool, err := OpenPooled(t.Context(), direct, pooled, credential)
		require.NoError(t, err)
		defer pool.Close()
		listener, err := pool.Dedicated(t.Context())
		require.NoError(t, err)
		defer func() { _ = listener.Close(t.Context()) }()
		_, err = listener.Exec(t.Context(), "LISTEN changes")
		require.NoError(t, err)
		_, err = pool.Exec(t.Context(), "NOTIFY changes, 'one'")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		n, err := listener.WaitForNotification(ctx)
		require.NoError(t, err)
		assert.Equal(t, "one", n.Payload)
	})

	t.Run("a refusal looks for the new password", func(t *testing.T) {
		changing, source := secrettest.Changing(t, pgbouncertest.Login, "an old one", time.Hour)
		pool, err := OpenPooled(t.Context(), direct, pooled, changing)
		require.NoError(t, err)
		defer pool.Close()
		source.Set(pgbouncertest.Login, pgbouncertest.Password)
		_, err = who(t, pool)
		require.True(t, postgres.Refused(err), "%v", err)
		require.Eventually(t, func() bool { _, err := who(t, pool); return err == nil }, patience, 10*time.Millisecond)

		changing, source = secrettest.Changing(t, "a role that is not there", "x", time.Hour)
		unknown, err := OpenPooled(t.Context(), direct, pooled, changing)
		require.NoError(t, err)
		defer unknown.Close()
		source.Set(pgbouncertest.Login, pgbouncertest.Password)
		_, err = who(t, unknown)
		require.True(t, postgres.Refused(err), "%v", err)
		require.Eventually(t, func() bool { _, err := who(t, unknown); return err == nil }, patience, 10*time.Millisecond)
	})

	t.Run("a bad address", func(t *testing.T) {
		_, err := OpenPooled(t.Context(), direct, "postgres://%", credential)
		require.Error(t, err)
	})
}

// refused runs statements of several kinds at once, again and again, and answers
// what they were refused with.
func refused(t *testing.T, query func(context.Context, string, ...any) (pgx.Rows, error), row func(context.Context, string, ...any) pgx.Row) (errs []error) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			errs = append(errs, err)
		}
	}
	for range 4 {
		group.Go(func() {
			for n := range 50 {
				var got int
				note(row(t.Context(), "SELECT $1::int", n).Scan(&got))
				rows, err := query(t.Context(), "SELECT * FROM unnest($1::text[], $2::float8[])", []string{"a", "b"}, []float64{1, 2})
				note(err)
				rows.Close()
				note(rows.Err())
			}
		})
	}
	group.Wait()
	return errs
}

// TestPoolerStops has a pooler go and come back: the pool goes on by itself.
func TestPoolerStops(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	require.NoError(t, pgbouncertest.Prepare(t.Context(), server))
	cfg := pgbouncertest.Config(t, server)
	p := pgbouncertest.Start(t, cfg)
	cfg.Port = p.Port()
	pool, err := OpenPooled(t.Context(), server.ConnString(pgbouncertest.Login, "", pgbouncertest.Database),
		p.ConnString(pgbouncertest.Login, "", pgbouncertest.Database), secrettest.Credential(pgbouncertest.Login, pgbouncertest.Password))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for range 2 {
		_, err = who(t, pool)
		require.NoError(t, err)
		require.NoError(t, p.Kill())
		_, err = who(t, pool)
		require.Error(t, err, "the control")
		require.False(t, postgres.Refused(err))
		p = pgbouncertest.Start(t, cfg)
		require.Eventually(t, func() bool { _, err := who(t, pool); return err == nil }, patience, 10*time.Millisecond)
	}
}
