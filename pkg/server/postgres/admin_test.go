package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
)

// A role of two servers is let in by both, or locked out of both; what fails on one of them
// is done by the same call again.
func TestAdminOfTwoServers(t *testing.T) {
	t.Parallel()
	var admin Admin
	var supers []*pgx.Conn
	var clusters []*Cluster
	for range 2 {
		cfg := testConfig(t)
		c := startCluster(t, cfg)
		super := connect(t, c, cfg)
		require.NoError(t, EnsureRole(t.Context(), super, "reader"))
		clusters, supers = append(clusters, c), append(supers, super)
		admin = append(admin, RoleServer{c.ConnString("", "", "postgres"), func(context.Context) (string, string, error) {
			return Superuser, cfg.SuperuserPassword, nil
		}})
	}
	logIn := func(password string) bool {
		t.Helper()
		in, err := admin.LogIn(t.Context(), "reader", password)
		require.NoError(t, err)
		return in
	}
	require.False(t, logIn("first"), "no password yet")
	require.NoError(t, admin.SetPassword(t.Context(), "reader", "first"))
	require.True(t, logIn("first"))
	require.False(t, logIn("another"))
	sessions := []*pgx.Conn{}
	for _, c := range clusters {
		conn, err := logInAs(t, c, "reader", "first", "postgres")
		require.NoError(t, err)
		sessions = append(sessions, conn)
	}
	n, err := admin.Sessions(t.Context(), "reader")
	require.NoError(t, err)
	assert.Equal(t, 2, n, "of both")

	// One server has the change, and the other has not: it is neither let in nor refused.
	for _, failing := range []int{0, 1} {
		good := admin[failing].Superuser
		admin[failing].Superuser = func(context.Context) (string, string, error) { return Superuser, "wrong", nil }
		require.ErrorContains(t, admin.SetPassword(t.Context(), "reader", "second"), "connecting to PostgreSQL as postgres")
		for _, password := range []string{"first", "second"} {
			in, err := admin.LogIn(t.Context(), "reader", password)
			require.ErrorIs(t, err, rotation.ErrPartly)
			assert.False(t, in)
		}
		require.False(t, logIn("another"))
		admin[failing].Superuser = good
		require.NoError(t, admin.SetPassword(t.Context(), "reader", "second"), "the same again")
		require.True(t, logIn("second"))
		require.NoError(t, admin.SetPassword(t.Context(), "reader", "first"))
	}

	require.NoError(t, SetPassword(t.Context(), supers[0], "reader", ""))
	_, err = admin.LogIn(t.Context(), "reader", "first")
	require.ErrorIs(t, err, rotation.ErrPartly, "locked on one of them")
	require.NoError(t, admin.SetPassword(t.Context(), "reader", ""))
	require.False(t, logIn("first"))
	for _, session := range sessions {
		require.Error(t, session.Ping(t.Context()), "its sessions are ended")
	}
	stopCluster(t, clusters[1])
	_, err = admin.LogIn(t.Context(), "reader", "first")
	require.Error(t, err, "a server that cannot be asked refuses nobody")
	require.NotErrorIs(t, err, rotation.ErrPartly)
}
