package vault_test

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
)

// administrator is a client with the root's token.
func administrator(t *testing.T, s *vaulttest.Server) *vault.Client {
	t.Helper()
	c, err := vault.OpenToken(s.Config(""), s.Root, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestVersions(t *testing.T) {
	t.Parallel()
	s := vaulttest.StartDev(t)
	c := administrator(t, s)
	_, err := c.Lookup(t.Context(), "a_password")
	require.ErrorIs(t, err, secret.ErrNotFound)

	put := func(text, username string, cas int) (int, error) {
		return c.Put(t.Context(), "a_password", secret.NewValue(text, "", "").WithUsername(username), cas)
	}
	for version, username := range []string{"", "user_b"} {
		got, err := put("text", username, version)
		require.NoError(t, err)
		assert.Equal(t, version+1, got)
		v, err := c.Lookup(t.Context(), "a_password")
		require.NoError(t, err)
		assert.Equal(t, "text", v.Reveal())
		assert.Equal(t, []string{"", "user_b"}[version], v.Username(""))
		assert.Equal(t, []string{"1", "2"}[version], v.Version())
	}
	for _, cas := range []int{0, 1, 3} {
		_, err = put("hunter2", "", cas)
		require.ErrorIs(t, err, vault.ErrConflict, "check-and-set %d", cas)
		require.NotContains(t, err.Error(), "hunter2")
	}
	requireSecret(t, c, "a_password", "text")

	kv := s.API().KVv2("secret")
	require.NoError(t, kv.Delete(t.Context(), "f2mesh/a_password"))
	_, err = c.Lookup(t.Context(), "a_password")
	require.ErrorIs(t, err, secret.ErrNotFound, "the newest version is deleted")
	require.NoError(t, kv.Undelete(t.Context(), "f2mesh/a_password", []int{2}))
	requireSecret(t, c, "a_password", "text")
	require.NoError(t, kv.Destroy(t.Context(), "f2mesh/a_password", []int{2}))
	_, err = c.Lookup(t.Context(), "a_password")
	require.ErrorIs(t, err, secret.ErrNotFound, "destroyed")
}

func TestFields(t *testing.T) {
	t.Parallel()
	s := vaulttest.StartDev(t)
	c := administrator(t, s)
	for name, test := range map[string]struct {
		fields         map[string]any
		want, username string
	}{
		"password":            {map[string]any{"password": "text"}, "text", ""},
		"value":               {map[string]any{"value": "text"}, "text", ""},
		"both":                {map[string]any{"value": "x", "password": "text", "username": "b", "note": 1}, "text", "b"},
		"neither":             {map[string]any{"passwd": "hunter2"}, "", ""},
		"empty":               {map[string]any{"password": ""}, "", ""},
		"a number":            {map[string]any{"password": 1234567}, "", ""},
		"username no text":    {map[string]any{"password": "hunter2", "username": 5}, "", ""},
		"a JSON object in it": {map[string]any{"password": `{"password":"x"}`}, `{"password":"x"}`, ""},
	} {
		_, err := s.API().KVv2("secret").Put(t.Context(), "f2mesh/x", test.fields)
		require.NoError(t, err)
		v, err := c.Lookup(t.Context(), "x")
		if test.want == "" {
			require.ErrorContains(t, err, "version", name)
			require.NotErrorIs(t, err, secret.ErrNotFound, "%s: a mistake, not an absence", name)
			require.NotContains(t, err.Error(), "hunter2")
			require.NotContains(t, err.Error(), "1234567")
			continue
		}
		require.NoError(t, err, name)
		assert.Equal(t, test.want, v.Reveal(), name)
		assert.Equal(t, test.username, v.Username(""), name)
	}
}

// TestEngineMissing: no engine is a mistake of somebody's, not a missing secret.
func TestEngineMissing(t *testing.T) {
	t.Parallel()
	s := vaulttest.StartDev(t)
	cfg := s.Config("")
	cfg.Mount = "elsewhere"
	c, err := vault.OpenToken(cfg, s.Root, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	_, err = c.Lookup(t.Context(), "mqtt_password")
	require.ErrorContains(t, err, "no handler for route")
	require.NotErrorIs(t, err, secret.ErrNotFound)
}
