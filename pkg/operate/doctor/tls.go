package doctor

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

func tlsChecks() []Check {
	return []Check{
		{
			"tls-root-key", "Production Hardening: Certificate management", "where the root's key is",
			"take root.key off the machine (docs/operations.md, Install), and restart a mesh that has it beside the issuer's", tlsRootKey,
		},
		{
			"tls-versions", "Production Hardening: TLS encryption", "TLS 1.0 and 1.1 with every server",
			"tls_version tlsv1.2 (Mosquitto), min_version (NATS), ssl_min_protocol_version (PostgreSQL)", tlsVersions,
		},
		{
			"tls-ciphers", "Production Hardening: TLS encryption", "RC4, 3DES and key exchange without forward secrecy with every server",
			"ciphers (Mosquitto), cipher_suites (NATS), ssl_ciphers (PostgreSQL): AES-GCM and ChaCha20 with ECDHE", tlsCiphers,
		},
		{
			"tls-certificates", "Production Hardening: Certificate management", "chain, name and dates of each server's certificate, and dates of the devices'",
			"restart the mesh, which renews its servers' certificates; f2mesh device renew for devices", tlsCertificates,
		},
		{
			"tls-revocation", "Production Hardening: Certificate management", "the broker's revocation lists: one for each issuing CA, none past its end",
			"keep the registrar running, which renews them; restart the mesh", tlsRevocation,
		},
	}
}

// endpoint is a server that speaks TLS.
type endpoint struct {
	name string
	port int
	// greet brings the connection to where TLS begins.
	greet func(net.Conn) error
}

func (m *Mesh) endpoints() []endpoint {
	all := []endpoint{
		{"controllers (MQTT)", m.Ports.MQTTTLS, nil},
		{"browsers (MQTT)", m.Ports.WebSocket, nil},
		{"NATS", m.Ports.NATS, greetNATS},
		{"PostgreSQL", m.Ports.Postgres, greetPostgres},
		{"TimescaleDB", m.Ports.Telemetry, greetPostgres},
		{"PgBouncer", m.Ports.PgBouncer, greetPostgres},
		{"EST", m.Ports.EST, nil},
		{"health API", m.Ports.HTTP, nil},
	}
	return slices.DeleteFunc(all, func(e endpoint) bool { return e.port == 0 })
}

func greetNATS(conn net.Conn) error {
	_, err := bufio.NewReaderSize(conn, 1<<16).ReadString('\n') // then the server waits
	return err
}

func greetPostgres(conn net.Conn) error {
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest
		return err
	}
	answer := make([]byte, 1)
	if _, err := conn.Read(answer); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return errors.New("PostgreSQL has no TLS")
	}
	return nil
}

// handshake is one attempt; what the server showed is in the answer.
func (m *Mesh) handshake(ctx context.Context, e endpoint, config *tls.Config) (tls.ConnectionState, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", m.address(e.port))
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // the check's own is later
	if e.greet != nil {
		if err := e.greet(conn); err != nil {
			return tls.ConnectionState{}, err
		}
	}
	client := tls.Client(conn, config)
	err = client.HandshakeContext(ctx)
	return client.ConnectionState(), err
}

// config is what a good client would offer.
func (m *Mesh) config() (*tls.Config, error) {
	config, err := m.tls()
	if err != nil {
		return nil, err
	}
	if devices, err := m.devices(1); err == nil {
		config.Certificates = []tls.Certificate{devices[0].certificate}
	}
	return config, nil
}

// tlsRefused offers every server what change makes of a good offer.
func (m *Mesh) tlsRefused(ctx context.Context, change func(*tls.Config)) Finding {
	good, err := m.config()
	if err != nil {
		return failed("%v", err)
	}
	bad := good.Clone()
	change(bad)
	var attempts []attempt
	for _, e := range m.endpoints() {
		try := func(config *tls.Config) func() error {
			return func() error {
				_, err := m.handshake(ctx, e, config)
				return err
			}
		}
		attempts = append(attempts, attempt{e.name, try(good), try(bad)})
	}
	return refused(attempts)
}

func tlsVersions(ctx context.Context, m *Mesh) Finding {
	return m.tlsRefused(ctx, func(c *tls.Config) {
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	})
}

// weakCiphers are those without forward secrecy, with RC4 or with 3DES.
func weakCiphers() (ids []uint16) {
	for _, suite := range tls.InsecureCipherSuites() {
		if !strings.HasPrefix(suite.Name, "TLS_ECDHE_") || strings.Contains(suite.Name, "RC4") || strings.Contains(suite.Name, "3DES") {
			ids = append(ids, suite.ID)
		}
	}
	return ids
}

func tlsCiphers(ctx context.Context, m *Mesh) Finding {
	return m.tlsRefused(ctx, func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, weakCiphers() // TLS 1.3 has none that is weak
	})
}

// tlsCertificates lets the handshake check chain, name and dates.
func tlsCertificates(ctx context.Context, m *Mesh) Finding {
	config, err := m.config()
	if err != nil {
		return failed("%v", err)
	}
	config.Time = m.Now
	var problems, due []string
	for _, e := range m.endpoints() {
		state, err := m.handshake(ctx, e, config)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", e.name, err))
		} else if identity.Due(state.PeerCertificates[0], m.Now()) {
			due = append(due, e.name)
		}
	}
	files, err := filepath.Glob(filepath.Join(m.bundles(), "*", "device.crt"))
	if err != nil {
		return failed("%v", err)
	}
	for _, file := range files {
		certificate, _ := identity.DeviceCertificate(filepath.Dir(file), true)
		switch {
		case certificate == nil:
			problems = append(problems, file+" cannot be read")
		case m.Now().After(certificate.NotAfter):
			problems = append(problems, file+" has expired")
		case identity.Due(certificate, m.Now()):
			due = append(due, file)
		}
	}
	if len(problems) == 0 && len(due) > 0 {
		return warning("two thirds of their life are over: %s", strings.Join(due, ", "))
	}
	return verdict(problems, "%d servers and %d devices, all good beyond today", len(m.endpoints()), len(files))
}

// tlsRootKey looks whether the key that signs issuing CAs is where services read.
func tlsRootKey(ctx context.Context, m *Mesh) Finding {
	if m.Containers {
		return m.mountedRootKey(ctx)
	}
	beside, apart := m.path("pki", "root.key"), m.path("root-key", "root.key")
	switch {
	case there(beside):
		return failed("%s lies where services read the issuer's key", beside)
	case there(apart):
		return warning("%s is on this machine: whoever gets in can sign issuers for twenty years", apart)
	}
	return ok("it is not on this machine")
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// mountedRootKey asks the Docker API who has the volume.
func (m *Mesh) mountedRootKey(ctx context.Context) Finding {
	all, reason := m.runningContainers(ctx)
	if reason != "" {
		return notChecked("%s", reason)
	}
	var problems []string
	for _, c := range all {
		for _, mount := range c.Mounts {
			if mount.Name == "f2mesh_root-key" {
				problems = append(problems, c.Name+" mounts the volume root-key")
			}
		}
	}
	if len(problems) > 0 {
		return verdict(problems, "")
	}
	return warning("no running container mounts the volume root-key; it is on this machine unless somebody has taken it away")
}

// tlsRevocation reads what the broker reads.
func tlsRevocation(_ context.Context, m *Mesh) Finding {
	text, err := os.ReadFile(m.path("mosquitto", "devices.crl"))
	if err != nil {
		return failed("%v", err)
	}
	lists, err := identity.ParseLists(text)
	if err != nil {
		return failed("%v", err)
	}
	authority, err := identity.OpenAuthority(m.path("pki"))
	if err != nil {
		return failed("%v", err)
	}
	authorities, err := authority.Authorities(context.Background())
	if err != nil {
		return failed("%v", err)
	}
	var problems []string
	for _, issuer := range authorities.Issuing {
		if !covered(issuer, lists) {
			problems = append(problems, "there is no list of "+issuer.Subject.CommonName)
		}
	}
	for _, list := range lists { // also those of issuers elsewhere, such as Vault
		if m.Now().After(list.NextUpdate) {
			problems = append(problems, fmt.Sprintf("the list of %s ended %s", list.Issuer.CommonName, list.NextUpdate.Format(time.RFC3339)))
		}
	}
	return verdict(problems, "%d lists, each good beyond now", len(lists))
}

// covered tells whether a CA has a list.
func covered(issuer *x509.Certificate, lists []*x509.RevocationList) bool {
	return slices.ContainsFunc(lists, func(l *x509.RevocationList) bool { return l.CheckSignatureFrom(issuer) == nil })
}

// selfSigned is a certificate that nobody vouches for.
func selfSigned(name string, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
