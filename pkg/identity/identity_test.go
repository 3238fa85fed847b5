package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

const device topic.MAC = "e4fd45f654be"

func open(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := OpenAuthority(dir)
	require.NoError(t, err)
	return a
}

// verify checks a chain file against the authority's CAFile for one purpose.
func verify(t *testing.T, a *Authority, certFile string, usage x509.ExtKeyUsage, name string) error {
	t.Helper()
	bundle, err := os.ReadFile(a.CAFile())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(bundle))
	certificate, err := readCertificate(certFile)
	require.NoError(t, err)
	_, err = certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestAuthorityIsMadeOnceAndKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "certs")
	first := open(t, dir)
	assert.Equal(t, filepath.Join(dir, "ca.crt"), first.CAFile())
	assert.Equal(t, first.current().certificate.Raw, open(t, dir).current().certificate.Raw)
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := entry.Info()
		require.NoError(t, err)
		switch {
		case entry.IsDir():
			assert.Equal(t, fs.FileMode(0o700), info.Mode().Perm(), path)
		case strings.HasSuffix(path, ".key"):
			assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), path)
		}
		return nil
	}))
	root, err := readCertificate(filepath.Join(dir, rootFile))
	require.NoError(t, err)
	assert.Equal(t, 1, root.MaxPathLen)
	assert.True(t, first.current().certificate.MaxPathLenZero, "the issuing CA makes no further CA")
	require.NoError(t, first.current().certificate.CheckSignatureFrom(root))
}

func TestConcurrentOpensEndWithOneAuthority(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "certs")
	var opened [8]*Authority
	var wg sync.WaitGroup
	for i := range opened {
		wg.Go(func() {
			a, err := OpenAuthority(dir)
			assert.NoError(t, err)
			opened[i] = a
		})
	}
	wg.Wait()
	for _, a := range opened {
		assert.Equal(t, opened[0].current().certificate.Raw, a.current().certificate.Raw)
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	assert.Len(t, left, 1, "nothing temporary is left")
}

func TestForeignKeyIsRefused(t *testing.T) {
	t.Parallel()
	dir, other := filepath.Join(t.TempDir(), "certs"), filepath.Join(t.TempDir(), "certs")
	open(t, dir)
	open(t, other)
	require.NoError(t, os.Rename(filepath.Join(other, "issuer.key"), filepath.Join(dir, "issuer.key")))
	_, err := OpenAuthority(dir)
	require.ErrorContains(t, err, "does not belong")
}

func TestIssueServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := open(t, filepath.Join(dir, "certs"))
	certFile, keyFile := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	names := []string{"localhost", "127.0.0.1", "::1"}
	require.NoError(t, a.IssueServer(certFile, keyFile, names))
	for _, name := range names {
		require.NoError(t, verify(t, a, certFile, x509.ExtKeyUsageServerAuth, name), name)
	}
	require.Error(t, verify(t, a, certFile, x509.ExtKeyUsageServerAuth, "elsewhere"))
	require.Error(t, verify(t, a, certFile, x509.ExtKeyUsageClientAuth, ""))

	first, err := readCertificate(certFile)
	require.NoError(t, err)
	require.NoError(t, a.IssueServer(certFile, keyFile, names[:1]))
	kept, err := readCertificate(certFile)
	require.NoError(t, err)
	assert.Equal(t, first.Raw, kept.Raw, "one that serves is kept")
	require.NoError(t, a.IssueServer(certFile, keyFile, []string{"elsewhere"}))
	require.NoError(t, verify(t, a, certFile, x509.ExtKeyUsageServerAuth, "elsewhere"))
}

func TestIssueDevice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := open(t, filepath.Join(dir, "certs"))
	created, err := a.IssueDevice(dir, device, "SN-1")
	require.NoError(t, err)
	assert.True(t, created)

	own := filepath.Join(dir, "e4-fd-45-f6-54-be")
	certFile := filepath.Join(own, "device.crt")
	require.NoError(t, verify(t, a, certFile, x509.ExtKeyUsageClientAuth, ""))
	require.Error(t, verify(t, a, certFile, x509.ExtKeyUsageServerAuth, ""))
	require.Error(t, verify(t, open(t, filepath.Join(dir, "other")), certFile, x509.ExtKeyUsageClientAuth, ""))

	certificate, err := readCertificate(certFile)
	require.NoError(t, err)
	assert.Equal(t, "e4-fd-45-f6-54-be", certificate.Subject.CommonName)
	assert.Equal(t, "SN-1", certificate.Subject.SerialNumber)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, certificate.ExtKeyUsage)
	assert.False(t, certificate.IsCA)
	assert.Greater(t, certificate.SerialNumber.BitLen(), 96, "128 random bits")
	assert.WithinDuration(t, time.Now().Add(-time.Hour), certificate.NotBefore, time.Minute)
	assert.WithinDuration(t, time.Now().AddDate(0, 0, 365), certificate.NotAfter, time.Minute)
	public, ok := certificate.PublicKey.(*ecdsa.PublicKey)
	require.True(t, ok)
	assert.Equal(t, elliptic.P256(), public.Curve)

	var config deviceConfig
	text, err := os.ReadFile(filepath.Join(own, "mqtt_config.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &config))
	assert.Equal(t, deviceConfig{"e4-fd-45-f6-54-be", "SN-1", "ca.crt", "device.crt", "device.key"}, config)
	info, err := os.Stat(filepath.Join(own, "device.key"))
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestDeviceBundleIsKeptUnlessDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, other := open(t, filepath.Join(dir, "certs")), open(t, filepath.Join(dir, "other"))
	own := filepath.Join(dir, device.Dashed())
	issue := func(a *Authority) bool {
		created, err := a.IssueDevice(dir, device, "SN-1")
		require.NoError(t, err)
		return created
	}
	require.True(t, issue(a))
	require.False(t, issue(a))
	for _, name := range []string{"device.crt", "device.key", "ca.crt", "mqtt_config.json"} {
		require.NoError(t, os.Remove(filepath.Join(own, name)))
		require.True(t, issue(a), "without %s", name)
		require.False(t, issue(a))
	}
	require.NoError(t, os.WriteFile(filepath.Join(own, "device.key"), []byte("not a key"), 0o600))
	require.True(t, issue(a), "a key that cannot be read")
	require.True(t, issue(other), "a certificate of another authority")
	require.False(t, issue(other))
}

func TestDueAfterTwoThirds(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	certificate := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(300 * time.Hour)}
	for hours, want := range map[int]bool{-1: false, 1: true, 199: true, 201: false, 301: false} {
		assert.Equal(t, !want, Due(certificate, begin.Add(time.Duration(hours)*time.Hour)), "after %d h", hours)
	}
}
