package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func request(t *testing.T, key crypto.Signer, template x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	require.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	return csr
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return key
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return key
}

func TestCheckRequest(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for name, one := range map[string]struct {
		key  crypto.Signer
		good bool
	}{
		"P-256":    {ecdsaKey(t, elliptic.P256()), true},
		"P-384":    {ecdsaKey(t, elliptic.P384()), true},
		"RSA 2048": {rsaKey(t, 2048), true},
		"RSA 3072": {rsaKey(t, 3072), true},
		"P-224":    {ecdsaKey(t, elliptic.P224()), false},
		"P-521":    {ecdsaKey(t, elliptic.P521()), false},
		"RSA 1024": {rsaKey(t, 1024), false},
		"Ed25519":  {ed, false},
	} {
		err := CheckRequest(request(t, one.key, x509.CertificateRequest{}))
		if one.good {
			require.NoError(t, err, name)
		} else {
			require.ErrorIs(t, err, ErrRequest, name)
		}
	}

	forged := request(t, ecdsaKey(t, elliptic.P256()), x509.CertificateRequest{})
	forged.PublicKey = ecdsaKey(t, elliptic.P256()).Public()
	require.ErrorIs(t, CheckRequest(forged), ErrRequest, "a key that its sender does not have")
}

func TestParseRequest(t *testing.T) {
	t.Parallel()
	csr := request(t, ecdsaKey(t, elliptic.P256()), x509.CertificateRequest{})
	for _, kind := range []string{"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"} {
		parsed, err := ParseRequest(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: csr.Raw}))
		require.NoError(t, err)
		assert.Equal(t, csr.Raw, parsed.Raw)
	}
	for name, text := range map[string][]byte{
		"nothing":          nil,
		"no PEM":           csr.Raw,
		"another type":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: csr.Raw}),
		"not what it says": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}),
		"too large":        make([]byte, maxRequestSize+1),
	} {
		_, err := ParseRequest(text)
		require.ErrorIs(t, err, ErrRequest, name)
	}
}

// Of a request only the key counts: what it asks for beside that it does not get.
func TestSignDeviceTakesOnlyTheKey(t *testing.T) {
	t.Parallel()
	a := open(t, filepath.Join(t.TempDir(), "certs"))
	for _, key := range []crypto.Signer{ecdsaKey(t, elliptic.P384()), rsaKey(t, 2048)} {
		csr := request(t, key, x509.CertificateRequest{
			Subject:  pkix.Name{CommonName: "bridge", Organization: []string{"admin"}},
			DNSNames: []string{"localhost"},
			ExtraExtensions: []pkix.Extension{
				{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}},       // a CA
				{Id: []int{2, 5, 29, 37}, Value: []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}}, // serverAuth
			},
		})
		signed, err := a.SignDevice(t.Context(), csr, device, "SN-1")
		require.NoError(t, err)
		c := signed.Certificate
		assert.Equal(t, "SERIALNUMBER=SN-1,CN=e4-fd-45-f6-54-be", c.Subject.String())
		assert.False(t, c.IsCA)
		assert.Empty(t, c.DNSNames)
		assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, c.ExtKeyUsage)
		assert.True(t, key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(c.PublicKey))
		require.NoError(t, c.CheckSignatureFrom(signed.Issuer))
	}
}

func signDevice(t *testing.T, a *Authority) Signed {
	t.Helper()
	_, csr, err := NewRequest()
	require.NoError(t, err)
	signed, err := a.SignDevice(t.Context(), csr, device, "SN-1")
	require.NoError(t, err)
	return signed
}

func TestRotate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "certs")
	a, other := open(t, dir), open(t, dir)
	old := signDevice(t, a)
	fresh, err := a.Rotate(t.Context(), "")
	require.NoError(t, err)

	young := signDevice(t, a)
	assert.Equal(t, fresh.Raw, young.Issuer.Raw)
	assert.NotEqual(t, old.Issuer.Subject, young.Issuer.Subject, "two issuing CAs of one name are hard to tell apart")
	all, err := other.Authorities(t.Context())
	require.NoError(t, err)
	require.Len(t, all.Issuing, 2)
	assert.Equal(t, fresh.Raw, all.Issuing[0].Raw, "another process sees it")
	bundle, err := os.ReadFile(a.CAFile())
	require.NoError(t, err)
	assert.Equal(t, all.Bundle(), bundle)
	for _, one := range []Signed{old, young} {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(bundle)
		_, err := one.Certificate.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		require.NoError(t, err)
		_, err = a.SignList(t.Context(), one.Issuer, list())
		require.NoError(t, err, "both sign lists")
	}

	require.ErrorIs(t, a.Retire(t.Context(), fresh), ErrInUse)
	require.NoError(t, a.Retire(t.Context(), old.Issuer))
	require.NoError(t, a.Retire(t.Context(), old.Issuer), "again")
	again, err := open(t, dir).Authorities(t.Context())
	require.NoError(t, err)
	assert.Len(t, again.Issuing, 1)
	_, err = a.SignList(t.Context(), old.Issuer, list())
	require.ErrorContains(t, err, "no key")
}

// A rotation that died before it wrote CAFile is finished by whoever looks next.
func TestBundleFollowsTheIssuers(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "certs")
	a := open(t, dir)
	before, err := os.ReadFile(a.CAFile())
	require.NoError(t, err)
	_, err = a.Rotate(t.Context(), "")
	require.NoError(t, err)
	after, err := os.ReadFile(a.CAFile())
	require.NoError(t, err)
	require.NotEqual(t, before, after)
	require.NoError(t, os.WriteFile(a.CAFile(), before, 0o600))
	healed, err := os.ReadFile(open(t, dir).CAFile())
	require.NoError(t, err)
	assert.Equal(t, after, healed)
}

func TestRootKeyMayBeElsewhere(t *testing.T) {
	t.Parallel()
	dir, elsewhere := filepath.Join(t.TempDir(), "certs"), filepath.Join(t.TempDir(), "root.key")
	open(t, dir)
	require.NoError(t, os.Rename(filepath.Join(dir, rootKeyName), elsewhere))
	a := open(t, dir)
	signDevice(t, a)
	_, err := a.Rotate(t.Context(), "")
	require.ErrorIs(t, err, ErrRootOffline)
	require.ErrorContains(t, err, "root.key does not exist")
	_, err = a.Rotate(t.Context(), filepath.Join(dir, "issuer.key"))
	require.ErrorContains(t, err, "not the key of this authority's root")
	_, err = a.Rotate(t.Context(), elsewhere)
	require.NoError(t, err)
}

func list(entries ...x509.RevocationListEntry) *x509.RevocationList {
	return &x509.RevocationList{
		Number: big.NewInt(7), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: entries,
	}
}

// OpenSSL, which is what Mosquitto asks, agrees about chain and list.
func TestOpenSSLAgrees(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	a := open(t, filepath.Join(dir, "certs"))
	good, bad := signDevice(t, a), signDevice(t, a)
	der, err := a.SignList(t.Context(), bad.Issuer, list(x509.RevocationListEntry{
		SerialNumber: bad.Certificate.SerialNumber, RevocationTime: time.Now(), ReasonCode: 1,
	}))
	require.NoError(t, err)
	lists, err := ParseLists(EncodeList(der))
	require.NoError(t, err)
	require.Len(t, lists, 1)
	require.NoError(t, lists[0].CheckSignatureFrom(bad.Issuer))

	crl := filepath.Join(dir, "devices.crl")
	require.NoError(t, os.WriteFile(crl, EncodeList(der), 0o600))
	openssl := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
		return string(out), err
	}
	out, err := openssl("crl", "-in", crl, "-noout", "-text", "-CAfile", a.CAFile(), "-verify")
	require.NoError(t, err, out)
	assert.Contains(t, out, "verify OK")
	assert.Contains(t, out, "Key Compromise")
	for _, one := range []struct {
		Signed
		accepted bool
	}{{good, true}, {bad, false}} {
		file := filepath.Join(dir, "device.crt")
		require.NoError(t, os.WriteFile(file, one.Chain(), 0o600))
		out, err := openssl("verify", "-CAfile", a.CAFile(), "-CRLfile", crl, "-crl_check", "-purpose", "sslclient", file)
		assert.Equal(t, one.accepted, err == nil, out)
		if !one.accepted {
			assert.Contains(t, out, "certificate revoked")
		}
	}
}

// The root's key leaves the folder that services read, and signs from where it is.
func TestMoveRootKey(t *testing.T) {
	t.Parallel()
	dir, apart := filepath.Join(t.TempDir(), "certs"), filepath.Join(t.TempDir(), "root-key")
	a, err := OpenAuthority(dir)
	require.NoError(t, err)
	require.NoError(t, MoveRootKey(dir, apart))
	require.NoError(t, MoveRootKey(dir, apart), "again")
	require.NoFileExists(t, filepath.Join(dir, rootKeyName))
	_, err = a.Rotate(t.Context(), "")
	require.ErrorIs(t, err, ErrRootOffline)
	_, err = a.Rotate(t.Context(), filepath.Join(apart, rootKeyName))
	require.NoError(t, err, "the control")

	require.NoError(t, os.WriteFile(filepath.Join(dir, rootKeyName), []byte("another"), 0o600))
	require.ErrorContains(t, MoveRootKey(dir, apart), "is another one")
	require.FileExists(t, filepath.Join(dir, rootKeyName))
}
