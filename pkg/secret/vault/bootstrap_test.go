package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

// fresh is a Vault without anything, and a Bootstrap for it.
func fresh(t *testing.T) *mesh {
	t.Helper()
	s := vaulttest.StartFile(t)
	return &mesh{Server: s, Bootstrap: vault.Bootstrap{
		Config: s.Config(filepath.Join(privateDir(t), "auth")), SecretsDir: secretsDir(t, "mqtt_password", "pgpass", "mqtt_username"),
		Roles: short, PKI: &vault.PKI{Mount: "pki"},
	}}
}

func TestBootstrapTwice(t *testing.T) {
	t.Parallel()
	m := fresh(t)
	m.DryRun = true
	planned := m.run(t)
	assert.NoDirExists(t, m.Bootstrap.Config.AuthDir)
	mounts, err := m.API().Sys().ListMountsWithContext(t.Context())
	require.NoError(t, err)
	assert.NotContains(t, mounts, "secret/", "a dry run makes nothing")
	assert.Empty(t, planned[vault.Unchanged])

	m.DryRun = false
	first := m.run(t)
	assert.Equal(t, planned, first, "what the dry run said")
	assert.NotContains(t, strings.Join(first[vault.Made], "\n"), "pgpass", "is no secret of its own")
	assert.Contains(t, first[vault.Made], "secret secret/f2mesh/mqtt_password")
	info, err := os.Stat(m.Bootstrap.Config.AuthDir)
	require.NoError(t, err)
	assert.Equal(t, fs.ModeDir|0o700, info.Mode())
	before := m.files(t)
	for _, used := range []bool{false, true} {
		if used {
			requireSecret(t, m.client(t, "bridge"), "mqtt_password", "first-mqtt_password")
			before = m.files(t)
		}
		again := m.run(t)
		assert.Empty(t, again[vault.Made])
		assert.Empty(t, again[vault.Changed])
		assert.Empty(t, again[vault.Attention])
		assert.Equal(t, before, m.files(t))
	}
}

// files are the contents of the logins' directory.
func (m *mesh) files(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(m.Bootstrap.Config.AuthDir)
	require.NoError(t, err)
	all := map[string]string{}
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode(), entry.Name())
		all[entry.Name()] = m.read(t, entry.Name())
	}
	return all
}

// TestBootstrapRepairsChanges: manual changes are repaired, and nothing else is changed.
func TestBootstrapRepairsChanges(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	c := administrator(t, m.Server)
	put(t, m.API(), "rotated")
	require.NoError(t, m.API().KVv2("secret").Delete(t.Context(), "f2mesh/postgres_password"))
	require.NoError(t, os.Remove(m.file("writer.secret_id")))
	_, err := c.Write(t.Context(), "auth/approle/role/f2mesh-decoder", map[string]any{"token_policies": []string{"root"}})
	require.NoError(t, err)
	require.NoError(t, m.API().Sys().DeletePolicyWithContext(t.Context(), "f2mesh-bridge"))
	_, err = m.API().Logical().UnwrapWithContext(t.Context(), m.read(t, "registrar.secret_id"))
	require.NoError(t, err, "somebody takes the registrar's")

	steps := m.run(t)
	assert.Equal(t, []string{"policy f2mesh-bridge", "file " + m.file("writer.secret_id")}, steps[vault.Made])
	assert.Equal(t, []string{"AppRole f2mesh-decoder"}, steps[vault.Changed])
	require.Len(t, steps[vault.Attention], 1)
	assert.Contains(t, steps[vault.Attention][0], "--reissue registrar")
	requireSecret(t, c, "mqtt_password", "rotated")
	_, err = c.Lookup(t.Context(), "postgres_password")
	require.ErrorIs(t, err, secret.ErrNotFound, "what was deleted is not put back")
}

func TestBootstrapRefuses(t *testing.T) {
	t.Parallel()
	m := fresh(t)
	m.Report = func(vault.Step) {}
	require.NoError(t, m.API().Sys().MountWithContext(t.Context(), "secret", &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}))
	require.ErrorContains(t, m.Run(t.Context(), m.Root), "already", "KV version 1")
	err := m.Run(t.Context(), secret.NewValue("hvs.nobody", "", ""))
	require.ErrorIs(t, err, vault.ErrPermission)
	require.ErrorContains(t, err, "administrator's token")
	require.NotContains(t, err.Error(), "nobody")
	m.Bootstrap.Config.Mount = "f2"
	require.NoError(t, m.Run(t.Context(), m.Root), "the control: another mount")
	requireSecret(t, m.client(t, "bridge"), "mqtt_password", "first-mqtt_password")
	m.Seal()
	require.ErrorIs(t, m.Run(t.Context(), m.Root), secret.ErrUnavailable)
}

const mac = "e4-fd-45-f6-54-be"

func request(t *testing.T, key any, subject pkix.Name, dns ...string) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: dns}, key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// TestPKI has the registrar sign devices' certificates, by an issuer of Vault's
// and by the mesh's own.
func TestPKI(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(privateDir(t), "pki")
	authority, err := identity.OpenAuthority(dir)
	require.NoError(t, err)
	for name, directory := range map[string]string{"made": "", "imported": dir} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := fresh(t)
			m.PKI.Import = directory
			m.run(t)
			registrar := m.client(t, "registrar")
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			sign := func(c *vault.Client, key any, subject pkix.Name, dns ...string) (*x509.Certificate, error) {
				answer, err := c.Write(t.Context(), "pki/sign/device", map[string]any{"csr": request(t, key, subject, dns...), "common_name": subject.CommonName})
				if err != nil {
					return nil, err
				}
				text, _ := answer["certificate"].(string)
				block, _ := pem.Decode([]byte(text))
				require.NotNil(t, block)
				return x509.ParseCertificate(block.Bytes)
			}
			certificate, err := sign(registrar, key, pkix.Name{CommonName: mac, SerialNumber: "SN-1"}, "mqtt.example.org")
			require.NoError(t, err)
			assert.Equal(t, mac, certificate.Subject.CommonName)
			assert.Equal(t, "SN-1", certificate.Subject.SerialNumber)
			assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, certificate.ExtKeyUsage)
			assert.Equal(t, x509.KeyUsageDigitalSignature, certificate.KeyUsage)
			assert.False(t, certificate.IsCA)
			assert.NotContains(t, certificate.DNSNames, "mqtt.example.org", "only its own name")
			assert.WithinDuration(t, time.Now().Add(-time.Hour), certificate.NotBefore, 10*time.Minute, "backdated")
			assert.WithinDuration(t, time.Now().AddDate(1, 0, 0), certificate.NotAfter, 25*time.Hour)
			assert.Equal(t, elliptic.P256(), certificate.PublicKey.(*ecdsa.PublicKey).Curve)
			if directory != "" {
				verify(t, authority.CAFile(), certificate)
			}

			other, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
			require.NoError(t, err)
			short, err := rsa.GenerateKey(rand.Reader, 1024)
			require.NoError(t, err)
			for what, refused := range map[string]struct {
				key  any
				name string
			}{
				"a server's name": {key, "mqtt.example.org"}, "a wildcard": {key, "*.example.org"}, "localhost": {key, "localhost"},
				"no name": {key, ""}, "a weaker curve": {other, mac}, "RSA": {short, mac},
			} {
				_, err := sign(registrar, refused.key, pkix.Name{CommonName: refused.name})
				require.Error(t, err, what)
			}
			for _, service := range []string{"bridge", "decoder", "writer", "operator"} {
				_, err := sign(m.client(t, service), key, pkix.Name{CommonName: mac})
				require.ErrorIs(t, err, vault.ErrPermission, service)
			}
			answer, err := registrar.Write(t.Context(), "pki/issuer/default/sign-revocation-list", map[string]any{
				"crl_number": 1, "next_update": "72h", "format": "pem", "revoked_certs": []any{map[string]any{"serial_number": hex.EncodeToString(certificate.SerialNumber.Bytes()), "revocation_time": time.Now().Format(time.RFC3339)}},
			})
			require.NoError(t, err)
			text, _ := answer["crl"].(string)
			block, _ := pem.Decode([]byte(text))
			require.NotNil(t, block)
			list, err := x509.ParseRevocationList(block.Bytes)
			require.NoError(t, err)
			require.Len(t, list.RevokedCertificateEntries, 1)
			assert.Equal(t, certificate.SerialNumber, list.RevokedCertificateEntries[0].SerialNumber)
			for _, path := range []string{"pki/root/generate/internal", "pki/roles/device", "pki-root/root/sign-intermediate", "pki/roles/device-rsa", "pki/sign-verbatim/device", "pki/issue/device", "pki/issue/device-rsa"} {
				_, err := registrar.Write(t.Context(), path, map[string]any{"common_name": mac})
				require.ErrorIs(t, err, vault.ErrPermission, path)
			}
		})
	}
}

func verify(t *testing.T, caFile string, certificate *x509.Certificate) {
	t.Helper()
	data, err := os.ReadFile(caFile)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(data))
	_, err = certificate.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.NoError(t, err, "the mesh trusts it")
	_, err = certificate.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	require.Error(t, err)
}

// TestDatabase has Vault make a user of a real PostgreSQL, and take it away.
func TestDatabase(t *testing.T) {
	t.Parallel()
	cluster := postgrestest.Start(t)
	m := prepare(t, short)
	super, err := pgx.Connect(t.Context(), postgrestest.DSN(cluster, "postgres"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, super.Close(context.WithoutCancel(t.Context()))) })
	for _, statement := range []string{
		"CREATE ROLE f2mesh_reader", "CREATE TABLE measurement (value float)", "INSERT INTO measurement VALUES (25.52)",
		"GRANT SELECT ON measurement TO f2mesh_reader",
	} {
		_, err := super.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	address := super.Config()
	dsn, err := url.Parse(postgrestest.DSN(cluster, "postgres"))
	require.NoError(t, err)
	ca, err := os.ReadFile(dsn.Query().Get("sslrootcert"))
	require.NoError(t, err)
	m.Database = &vault.DatabaseEngine{
		URL: fmt.Sprintf("postgresql://%s:%d/postgres?sslmode=verify-full", cluster.Host(), cluster.Port()), CA: string(ca),
		Username: "postgres", Password: secret.NewValue(postgrestest.Password, "", ""), Reader: "f2mesh_reader",
	}
	require.Len(t, m.run(t)[vault.Made], 3)
	again := m.run(t)
	require.Empty(t, again[vault.Made])
	require.Empty(t, again[vault.Changed])

	operator := m.client(t, "operator")
	answer, err := operator.Read(t.Context(), "database/creds/reader")
	require.NoError(t, err)
	address.User, _ = answer["username"].(string)
	address.Password, _ = answer["password"].(string)
	reader, err := pgx.ConnectConfig(t.Context(), address)
	require.NoError(t, err)
	var value float64
	require.NoError(t, reader.QueryRow(t.Context(), "SELECT value FROM measurement").Scan(&value))
	assert.InDelta(t, 25.52, value, 0)
	_, err = reader.Exec(t.Context(), "INSERT INTO measurement VALUES (1)")
	require.Error(t, err)
	require.NoError(t, reader.Close(t.Context()))

	require.NoError(t, m.API().Sys().RevokePrefixWithContext(t.Context(), "database/creds/reader"))
	_, err = pgx.ConnectConfig(t.Context(), address)
	require.Error(t, err, "revoked")
	for _, service := range []string{"bridge", "decoder", "writer", "registrar"} {
		_, err := m.client(t, service).Read(t.Context(), "database/creds/reader")
		require.ErrorIs(t, err, vault.ErrPermission, service)
	}

	m.Database.URL = "not a URL"
	require.Error(t, m.Run(t.Context(), m.Root))
}

// TestSecretIDsAreBound: a SecretID has an end and an address without anybody having to
// ask for it, and Vault records who uses one.
func TestSecretIDsAreBound(t *testing.T) {
	t.Parallel()
	m := fresh(t)
	record := filepath.Join(t.TempDir(), "audit.log")
	m.Roles.SecretIDTTL, m.Audit = 2160*time.Hour, vault.AuditDevice{File: record}
	assert.Contains(t, m.run(t)[vault.Made], "audit device")
	requireSecret(t, m.client(t, "bridge"), "mqtt_password", "first-mqtt_password")
	text, err := os.ReadFile(record)
	require.NoError(t, err)
	assert.Contains(t, string(text), "secret/data/f2mesh/mqtt_password")
	assert.NotContains(t, string(text), "first-mqtt_password", "in clear")

	c := administrator(t, m.Server)
	role, err := c.Read(t.Context(), "auth/approle/role/f2mesh-bridge")
	require.NoError(t, err)
	assert.Equal(t, []any{"127.0.0.0/8", "::1/128"}, role["secret_id_bound_cidrs"])
	assert.Equal(t, []any{"127.0.0.0/8", "::1"}, role["token_bound_cidrs"])
	known := func() map[string]any {
		answer, err := c.Write(t.Context(), "auth/approle/role/f2mesh-bridge/secret-id/lookup", map[string]any{"secret_id": m.read(t, "bridge.secret_id")})
		require.NoError(t, err)
		return answer
	}
	ends, err := time.Parse(time.RFC3339, known()["expiration_time"].(string))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(2160*time.Hour), ends, time.Hour)

	again := m.run(t)
	assert.Empty(t, again[vault.Made])
	assert.Empty(t, again[vault.Changed])
	m.Roles.SecretIDTTL = 4 * 2160 * time.Hour // of which the one in the file has less than a third left
	again = m.run(t)
	assert.Contains(t, again[vault.Changed], "file "+m.file("bridge.secret_id"))
	requireSecret(t, m.client(t, "bridge"), "mqtt_password", "first-mqtt_password")

	m.Bootstrap.Config.Addr = "https://vault.example.org:8200"
	require.ErrorContains(t, m.Run(t.Context(), m.Root), "--cidr")
}
