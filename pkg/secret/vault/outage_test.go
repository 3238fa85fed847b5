package vault_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
)

func downgraded(s secret.Status) bool { return s.Downgraded }
func clean(s secret.Status) bool      { return !s.Downgraded && s.Source == "vault" }

func reveal(t *testing.T, store *secret.Store, name string) string {
	t.Helper()
	v, err := store.Get(t.Context(), name)
	require.NoError(t, err)
	return v.Reveal()
}

func gauge(t *testing.T, store *secret.Store) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(store)
	count, err := testutil.GatherAndCount(reg, "f2mesh_secret_downgraded")
	require.NoError(t, err)
	require.Equal(t, 1, count)
	families, err := reg.Gather()
	require.NoError(t, err)
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

// put writes a new mqtt_password by hand, as `vault kv put` does.
func put(t *testing.T, client *api.Client, text string) {
	t.Helper()
	_, err := client.KVv2("secret").Put(t.Context(), "f2mesh/mqtt_password", map[string]any{"password": text})
	require.NoError(t, err)
}

// TestOutages: whatever happens to Vault, the last good value stays in use, the
// alarm says so, and it ends by itself.
func TestOutages(t *testing.T) {
	t.Parallel()
	s := vaulttest.StartFile(t)
	m := prepareServer(t, s, short)
	files := secret.Files(secretsDir(t, "mqtt_password"))
	var log recorder
	store := follow(t, secret.Chain{open(t, m.Bootstrap.Config, "bridge", log.handler()), files}, log.handler())
	require.Equal(t, "first-mqtt_password", reveal(t, store, "mqtt_password"))
	changed := make(chan struct{}, 10)
	store.Notify("mqtt_password", func() { changed <- struct{}{} })
	eventually(t, store, "mqtt_password", clean)

	for i, outage := range []struct {
		what       string
		begin, end func()
	}{
		{"sealed", s.Seal, s.Unseal},
		{"stopped", s.Stop, func() { s.Restart(); s.Unseal() }},
		{"restarted and sealed", func() { s.Stop(); s.Restart() }, s.Unseal},
		{
			"token revoked while the login is locked",
			func() {
				require.NoError(t, m.API().Sys().RevokePrefixWithContext(t.Context(), "auth/approle/login"))
				require.NoError(t, m.API().Sys().DisableAuthWithContext(t.Context(), "approle"))
			},
			func() {
				for _, name := range []string{"bridge.role_id", "bridge.secret_id"} {
					m.write(t, name, "unknown to the new method")
				}
				m.run(t)
			},
		},
	} {
		before := reveal(t, store, "mqtt_password")
		outage.begin()
		status := eventually(t, store, "mqtt_password", downgraded)
		assert.NotEmpty(t, status.Problem, outage.what)
		assert.Equal(t, "vault", status.Source, "%s: not the file's", outage.what)
		assert.Equal(t, before, reveal(t, store, "mqtt_password"), outage.what)
		assert.InDelta(t, 1, gauge(t, store), 0, outage.what)

		outage.end()
		status = eventually(t, store, "mqtt_password", clean)
		assert.Empty(t, status.Problem, outage.what)
		assert.InDelta(t, 0, gauge(t, store), 0, outage.what)
		assert.Empty(t, changed, "%s: the value is as before", outage.what)

		second := "second-" + string(rune('a'+i))
		put(t, m.API(), second)
		store.Refused()
		select {
		case <-changed:
		case <-time.After(time.Minute):
			require.FailNow(t, "the new version was not noticed", outage.what)
		}
		assert.Equal(t, second, reveal(t, store, "mqtt_password"), outage.what)
	}
	for _, private := range []string{"first-mqtt_password", "second-a", m.read(t, "bridge.secret_id"), m.Root.Reveal()} {
		assert.NotContains(t, log.String(), private)
	}
}

// TestSlowVault: a Vault that takes connections and does not answer.
func TestSlowVault(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	proxy := vaulttest.NewProxy(t, m.Server)
	cfg := m.Bootstrap.Config
	cfg.Addr = proxy.Addr
	files := secret.Files(secretsDir(t, "mqtt_password", "nats_bridge_password"))
	require.NotEmpty(t, files)
	store := follow(t, secret.Chain{open(t, cfg, "bridge", slog.DiscardHandler), files}, slog.DiscardHandler)
	put(t, m.API(), "of-vault")
	require.Equal(t, "of-vault", reveal(t, store, "mqtt_password"))

	proxy.Stall()
	began := time.Now()
	store.Refused()
	for range 20 {
		require.Equal(t, "of-vault", reveal(t, store, "mqtt_password"))
	}
	assert.Less(t, time.Since(began), 2*time.Second, "what is known does not wait for Vault")
	require.Equal(t, "first-nats_bridge_password", reveal(t, store, "nats_bridge_password"), "the file's, once Vault had its time")
	assert.Less(t, time.Since(began), 30*time.Second)
	eventually(t, store, "mqtt_password", downgraded)
	eventually(t, store, "nats_bridge_password", downgraded)

	proxy.Flow()
	eventually(t, store, "mqtt_password", clean)
	eventually(t, store, "nats_bridge_password", clean)
}

// TestDownAtStart: files carry a mesh whose Vault is away, except for what only
// Vault may give.
func TestDownAtStart(t *testing.T) {
	t.Parallel()
	s := vaulttest.StartFile(t)
	m := prepareServer(t, s, short)
	put(t, m.API(), "of-vault")
	s.Stop()
	files := secret.Files(secretsDir(t, "mqtt_password", "nats_bridge_password"))
	store := follow(t, secret.Chain{m.client(t, "bridge"), secret.VaultOnly{"nats_bridge_password"}, files}, slog.DiscardHandler)
	require.Equal(t, "first-mqtt_password", reveal(t, store, "mqtt_password"))
	status := eventually(t, store, "mqtt_password", downgraded)
	assert.Equal(t, "file", status.Source)
	assert.Contains(t, status.Problem, "unavailable")
	_, err := store.Get(t.Context(), "nats_bridge_password")
	require.ErrorContains(t, err, "Vault-only")

	s.Restart()
	_, err = store.Get(t.Context(), "nats_bridge_password")
	require.ErrorIs(t, err, secret.ErrUnavailable, "it runs, and is sealed")
	require.ErrorContains(t, err, "sealed")
	s.Unseal()
	eventually(t, store, "mqtt_password", clean)
	require.Equal(t, "of-vault", reveal(t, store, "mqtt_password"))
	require.Equal(t, "first-nats_bridge_password", reveal(t, store, "nats_bridge_password"), "of Vault, which has it from the files")
	eventually(t, store, "nats_bridge_password", clean)
}

// TestPolicyRemoved: a permission is no outage: at the start it is refused
// rather than passed by, later the last good value stays.
func TestPolicyRemoved(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	files := secret.Files(secretsDir(t, "mqtt_password", "nats_bridge_password"))
	store := follow(t, secret.Chain{m.client(t, "bridge"), files}, slog.DiscardHandler)
	require.Equal(t, "first-mqtt_password", reveal(t, store, "mqtt_password"))
	require.NoError(t, m.API().Sys().PutPolicyWithContext(t.Context(), "f2mesh-bridge", `path "auth/token/lookup-self" { capabilities = ["read"] }`))
	_, err := store.Get(t.Context(), "nats_bridge_password")
	require.ErrorContains(t, err, "policy does not permit")
	eventually(t, store, "mqtt_password", downgraded)
	require.Equal(t, "first-mqtt_password", reveal(t, store, "mqtt_password"))
	require.Len(t, m.run(t)["changed"], 1, "bootstrap fixes it")
	eventually(t, store, "mqtt_password", clean)
	require.Equal(t, "first-nats_bridge_password", reveal(t, store, "nats_bridge_password"))
}
