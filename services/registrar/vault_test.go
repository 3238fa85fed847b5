package registrar

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
)

// vaultIssuer is the PKI engine of a Vault of its own, with the registrar's rights.
func vaultIssuer(t *testing.T) *vault.PKIIssuer {
	t.Helper()
	s := vaulttest.StartDev(t)
	prepare := vault.Bootstrap{
		Config: s.Config(filepath.Join(accounttest.TempDir(t), "auth")), PKI: &vault.PKI{Mount: "pki"}, Report: func(vault.Step) {},
		Roles: vault.Roles{TokenTTL: time.Hour, TokenMaxTTL: time.Hour, WrapTTL: time.Hour},
	}
	require.NoError(t, prepare.Run(t.Context(), s.Root))
	client, err := vault.Open(prepare.Config, "registrar", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return vault.NewIssuer(client, "pki")
}

// The same operations, signed by Vault; devices of the files' issuer go on.
func TestVaultIsTheIssuer(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1"})
	byFiles := b.pair(device)
	b.cfg.Issuer = identity.Several{vaultIssuer(t), b.authority}

	key, csr := newCSR(t)
	results := b.registerAll(Request{MAC: neighbor, SerialNumber: "SN-2"}, Request{MAC: macOf(1), SerialNumber: "SN-3", CSR: csr})
	assert.NotEqual(t, byFiles.Leaf.AuthorityKeyId, results[0].Certificate.AuthorityKeyId)
	assert.True(t, b.admitted(byFiles) && b.admitted(b.pair(neighbor)) && b.admitted(identityPair(results[1], key)))
	assert.True(t, b.publishes(neighbor))
	assert.False(t, b.register(Request{MAC: neighbor, SerialNumber: "SN-2"})[0].Issued)
	require.NoError(t, b.Check(t.Context(), neighbor, results[0].Certificate))

	// Who works with the files alone would shut Vault's devices out, and is stopped.
	other := b.another()
	_, err := other.Register(t.Context(), operator, Request{MAC: macOf(2), SerialNumber: "SN-4"})
	require.ErrorContains(t, err, "not at hand here")
	_, err = other.Refresh(t.Context())
	require.ErrorContains(t, err, "not at hand here")
	assert.True(t, b.admitted(b.pair(neighbor)))

	old := b.pair(neighbor)
	_, err = b.Renew(t.Context(), operator, neighbor, nil, nil)
	require.NoError(t, err)
	_, err = b.Revoke(t.Context(), operator, KeyCompromise, neighbor)
	require.NoError(t, err)
	assert.False(t, b.admitted(old) || b.admitted(b.pair(neighbor)))
	assert.True(t, b.admitted(byFiles) && b.admitted(identityPair(results[1], key)))
	_, err = b.Renew(t.Context(), operator, device, nil, nil)
	require.NoError(t, err)
	assert.Equal(t, results[0].Device.Issuer, identity.KeyID(results[0].Issuer))
	shown, err := b.Show(t.Context(), device)
	require.NoError(t, err)
	assert.Equal(t, results[0].Device.Issuer, shown.Issuer, "renewing moves a device to Vault")
	_, err = b.RotateIssuer(t.Context(), operator, "")
	require.ErrorContains(t, err, "the issuer does that itself")
	b.whole()
}
