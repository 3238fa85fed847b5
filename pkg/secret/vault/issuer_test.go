package vault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

const device topic.MAC = "e4fd45f654be"

var _ identity.Issuer = (*vault.PKIIssuer)(nil)

func csr(t *testing.T, subject pkix.Name) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: []string{"localhost"}}, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	return parsed
}

func listOf(revoked ...*x509.Certificate) *x509.RevocationList {
	now := time.Now().Truncate(time.Second)
	list := &x509.RevocationList{Number: big.NewInt(3), ThisUpdate: now, NextUpdate: now.Add(48 * time.Hour)}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now.UTC(), ReasonCode: 1})
	}
	return list
}

func TestIssuer(t *testing.T) {
	t.Parallel()
	m := fresh(t)
	m.run(t)
	issuer := vault.NewIssuer(m.client(t, "registrar"), "pki")
	all, err := issuer.Authorities(t.Context())
	require.NoError(t, err)
	require.Len(t, all.Issuing, 1)
	require.Len(t, all.Roots, 1)
	require.NoError(t, all.Issuing[0].CheckSignatureFrom(all.Roots[0]))

	var signed []identity.Signed
	for _, subject := range []pkix.Name{{}, {CommonName: "e4-fd-45-f6-54-bf"}, {CommonName: "bridge", SerialNumber: "SN-9"}} {
		one, err := issuer.SignDevice(t.Context(), csr(t, subject), device, "SN-1")
		require.NoError(t, err)
		assert.Equal(t, "SERIALNUMBER=SN-1,CN=e4-fd-45-f6-54-be", one.Certificate.Subject.String(), "whatever the request says")
		assert.Empty(t, one.Certificate.DNSNames)
		assert.Equal(t, all.Issuing[0].Raw, one.Issuer.Raw)
		signed = append(signed, one)
	}

	der, err := issuer.SignList(t.Context(), signed[0].Issuer, listOf(signed[0].Certificate, signed[1].Certificate))
	require.NoError(t, err)
	list, err := x509.ParseRevocationList(der)
	require.NoError(t, err)
	require.NoError(t, list.CheckSignatureFrom(all.Issuing[0]))
	assert.Equal(t, big.NewInt(3), list.Number)
	assert.WithinDuration(t, time.Now().Add(48*time.Hour), list.NextUpdate, time.Minute)
	require.Len(t, list.RevokedCertificateEntries, 2)
	for _, e := range list.RevokedCertificateEntries {
		assert.Equal(t, 1, e.ReasonCode)
		assert.True(t, e.SerialNumber.Cmp(signed[0].Certificate.SerialNumber) == 0 || e.SerialNumber.Cmp(signed[1].Certificate.SerialNumber) == 0)
	}
	_, err = issuer.SignList(t.Context(), signed[0].Issuer, listOf())
	require.NoError(t, err, "nobody is revoked")
	_, err = issuer.SignList(t.Context(), signed[0].Certificate, listOf())
	require.ErrorContains(t, err, "no issuing CA")
	_, err = vault.NewIssuer(m.client(t, "bridge"), "pki").SignDevice(t.Context(), csr(t, pkix.Name{}), device, "SN-1")
	require.ErrorIs(t, err, vault.ErrPermission, "another service")
}

// Devices with RSA keys get certificates as they do from files, short keys do not.
func TestIssuerTakesRSA(t *testing.T) {
	t.Parallel()
	m := fresh(t)
	m.run(t)
	issuer := vault.NewIssuer(m.client(t, "registrar"), "pki")
	for bits, good := range map[int]bool{1024: false, 2048: true, 3072: true} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		require.NoError(t, err)
		request, err := x509.ParseCertificateRequest(der)
		require.NoError(t, err)
		one, err := issuer.SignDevice(t.Context(), request, device, "SN-1")
		if !good {
			require.Error(t, err, bits)
			continue
		}
		require.NoError(t, err, bits)
		assert.Equal(t, "SERIALNUMBER=SN-1,CN=e4-fd-45-f6-54-be", one.Certificate.Subject.String())
		assert.True(t, key.PublicKey.Equal(one.Certificate.PublicKey))
	}
}

// What a role that somebody has changed signs is not taken.
func TestIssuerChecksWhatVaultSigned(t *testing.T) {
	t.Parallel()
	m := fresh(t)
	m.run(t)
	issuer := vault.NewIssuer(m.client(t, "registrar"), "pki")
	_, err := issuer.SignDevice(t.Context(), csr(t, pkix.Name{}), device, "SN-1")
	require.NoError(t, err, "the control")
	for change, value := range map[string]any{"server_flag": true, "use_csr_common_name": true, "use_csr_sans": true} {
		role := map[string]any{"key_type": "any", "allowed_serial_numbers": []string{"*"}, "allow_any_name": true, "enforce_hostnames": false, "server_flag": false, "use_csr_common_name": false, "use_csr_sans": false}
		role[change] = value
		_, err := m.API().Logical().WriteWithContext(t.Context(), "pki/roles/device", role)
		require.NoError(t, err)
		_, err = issuer.SignDevice(t.Context(), csr(t, pkix.Name{CommonName: "e4-fd-45-f6-54-bf"}), device, "SN-1")
		require.ErrorContains(t, err, "checking what Vault", change)
	}
}

// Vault gets another issuer: it signs, and the earlier one still signs its list.
func TestIssuerAfterRotation(t *testing.T) {
	t.Parallel()
	m := fresh(t)
	dir := filepath.Join(privateDir(t), "pki")
	authority, err := identity.OpenAuthority(dir)
	require.NoError(t, err)
	m.PKI.Import = dir
	m.run(t)
	issuer := vault.NewIssuer(m.client(t, "registrar"), "pki")
	both := identity.Several{issuer, authority}
	imported, err := both.Authorities(t.Context())
	require.NoError(t, err)
	require.Len(t, imported.Issuing, 1, "it is the same CA")
	require.Len(t, imported.Roots, 1)
	old, err := both.SignDevice(t.Context(), csr(t, pkix.Name{}), device, "SN-1")
	require.NoError(t, err)

	answer, err := m.API().Logical().WriteWithContext(t.Context(), "pki/root/generate/internal", map[string]any{
		"common_name": "another", "key_type": "ec", "key_bits": 256, "ttl": "17520h",
	})
	require.NoError(t, err)
	_, err = m.API().Logical().WriteWithContext(t.Context(), "pki/config/issuers", map[string]any{"default": answer.Data["issuer_id"]})
	require.NoError(t, err)
	young, err := both.SignDevice(t.Context(), csr(t, pkix.Name{}), device, "SN-1")
	require.NoError(t, err)
	assert.Equal(t, "another", young.Issuer.Subject.CommonName)
	all, err := both.Authorities(t.Context())
	require.NoError(t, err)
	require.Len(t, all.Issuing, 2)
	for _, one := range []identity.Signed{old, young} {
		der, err := issuer.SignList(t.Context(), one.Issuer, listOf(one.Certificate))
		require.NoError(t, err)
		list, err := x509.ParseRevocationList(der)
		require.NoError(t, err)
		require.NoError(t, list.CheckSignatureFrom(one.Issuer))
	}
	_, err = both.SignList(t.Context(), old.Certificate, listOf())
	require.ErrorContains(t, err, "no key of issuing CA")
}
