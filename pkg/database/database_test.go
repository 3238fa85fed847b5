package database

import (
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

var cluster postgrestest.Shared

func TestMain(m *testing.M) { os.Exit(cluster.Main(m, nil)) }

const patience = time.Minute

// roles makes a role of its own for the test, with its alternate, and answers a
// superuser.
func roles(t *testing.T, role, dsn string) *pgx.Conn {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(t.Context()) })
	require.NoError(t, postgres.EnsureRole(t.Context(), admin, role))
	require.NoError(t, postgres.SetPassword(t.Context(), admin, role, "first"))
	return admin
}

// who is logged in on the pool's next connection.
func who(t *testing.T, pool *Pool) (user string, err error) {
	t.Helper()
	return user, pool.QueryRow(t.Context(), "SELECT session_user").Scan(&user)
}

// TestFollow changes a credential while a query runs: the query ends well, and
// the next is the other role's.
func TestFollow(t *testing.T) {
	t.Parallel()
	const role = "follow"
	dsn := cluster.NewDatabase(t, "")
	admin := roles(t, role, dsn)
	c, source := secrettest.Changing(t, role, "first", 10*time.Millisecond)
	pool, err := Open(t.Context(), dsn, c)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	user, err := who(t, pool)
	require.NoError(t, err)
	require.Equal(t, role, user)
	dedicated, err := pool.Dedicated(t.Context())
	require.NoError(t, err)
	require.NoError(t, dedicated.Close(t.Context()))
	select {
	case <-pool.Changed():
		require.Fail(t, "nothing has changed")
	default:
	}

	busy, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, postgres.SetPassword(t.Context(), admin, credential.Alternate(role), "second"))
	source.Set(credential.Alternate(role), "second")
	select {
	case <-pool.Changed():
	case <-time.After(patience):
		require.Fail(t, "the pool does not tell")
	}
	require.NoError(t, busy.QueryRow(t.Context(), "SELECT session_user").Scan(&user), "what is in use stays")
	assert.Equal(t, role, user)
	busy.Release()
	user, err = who(t, pool)
	require.NoError(t, err)
	assert.Equal(t, credential.Alternate(role), user)
	require.Eventually(t, func() bool {
		n, err := postgres.Sessions(t.Context(), admin, role)
		return err == nil && n == 0
	}, patience, 10*time.Millisecond, "no connection of the first is left")
}

// TestRefused locks a role out whose store looks by itself only once an hour.
func TestRefused(t *testing.T) {
	t.Parallel()
	const role = "refused"
	dsn := cluster.NewDatabase(t, "")
	admin := roles(t, role, dsn)
	c, source := secrettest.Changing(t, role, "first", time.Hour)
	pool, err := Open(t.Context(), dsn, c)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, postgres.SetPassword(t.Context(), admin, role, "second"))
	source.Set(role, "second")
	_, err = who(t, pool)
	require.True(t, postgres.Refused(err), "the control: it still has the old password: %v", err)
	require.NotContains(t, err.Error(), "first")
	require.Eventually(t, func() bool { user, err := who(t, pool); return err == nil && user == role }, patience, 10*time.Millisecond)
}

func TestOpenRefusesABadAddress(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), "postgres://%", secrettest.Credential("a", "b"))
	require.Error(t, err)
}
