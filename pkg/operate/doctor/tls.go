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

// endpoint is a server that speaks TLS.
type endpoint struct {
	name string
	port int
	// greet reads and writes what comes before TLS.
	greet func(net.Conn) error
}

func (t *Target) endpoints() []endpoint {
	all := []endpoint{
		{"controllers (MQTT)", t.Ports.MQTTTLS, nil},
		{"browsers (MQTT)", t.Ports.WebSocket, nil},
		{"NATS", t.Ports.NATS, greetNATS},
		{"PostgreSQL", t.Ports.Postgres, greetPostgres},
		{"TimescaleDB", t.Ports.Telemetry, greetPostgres},
		{"PgBouncer", t.Ports.PgBouncer, greetPostgres},
		{"EST", t.Ports.EST, nil},
		{"health API", t.Ports.HTTP, nil},
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
	reply := make([]byte, 1)
	if _, err := conn.Read(reply); err != nil {
		return err
	}
	if reply[0] != 'S' {
		return errors.New("the server has no TLS")
	}
	return nil
}

// handshake connects and returns what the server showed.
func (t *Target) handshake(ctx context.Context, e endpoint, config *tls.Config) (tls.ConnectionState, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", t.address(e.port))
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // before that of the check
	if e.greet != nil {
		if err := e.greet(conn); err != nil {
			return tls.ConnectionState{}, err
		}
	}
	client := tls.Client(conn, config)
	err = client.HandshakeContext(ctx)
	return client.ConnectionState(), err
}

// goodTLS is what a good client offers: also a controller's certificate, if there is one.
func (t *Target) goodTLS() *tls.Config {
	config := t.tls()
	for _, d := range t.devices(1) {
		config.Certificates = append(config.Certificates, d.certificate)
	}
	return config
}

// tlsRefused connects to every server with what change makes of a good configuration.
func (t *Target) tlsRefused(ctx context.Context, change func(*tls.Config)) Finding {
	good := t.goodTLS()
	bad := good.Clone()
	change(bad)
	var attempts []attempt
	for _, e := range t.endpoints() {
		try := func(config *tls.Config) func() error {
			return func() error {
				_, err := t.handshake(ctx, e, config)
				return err
			}
		}
		attempts = append(attempts, attempt{e.name, try(good), try(bad)})
	}
	return refused(attempts...)
}

func tlsVersions(ctx context.Context, t *Target) Finding {
	return t.tlsRefused(ctx, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
}

func tlsCiphers(ctx context.Context, t *Target) Finding {
	var weak []uint16
	for _, suite := range tls.InsecureCipherSuites() {
		if !strings.HasPrefix(suite.Name, "TLS_ECDHE_") || strings.Contains(suite.Name, "RC4") || strings.Contains(suite.Name, "3DES") {
			weak = append(weak, suite.ID)
		}
	}
	return t.tlsRefused(ctx, func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, weak }) // TLS 1.3 has no weak ones
}

// tlsRootKey looks for the key that signs issuing CAs where services could read it.
func tlsRootKey(ctx context.Context, t *Target) Finding {
	if t.Containers {
		return mountedRootKey(ctx, t)
	}
	beside, apart := t.path("pki", "root.key"), t.path("root-key", "root.key")
	switch {
	case exists(beside):
		return failed("%s is where services read the issuing CA's key", beside)
	case exists(apart):
		return warning("%s is on this machine: an attacker on it could sign issuing CAs for twenty years", apart)
	}
	return ok("the key is not on this machine")
}

func mountedRootKey(ctx context.Context, t *Target) Finding {
	for _, c := range t.runningContainers(ctx) {
		for _, mount := range c.Mounts {
			if mount.Name == "f2mesh_root-key" {
				return failed("%s mounts the volume root-key", c.Name)
			}
		}
	}
	return warning("no running container mounts the volume root-key; the key is on this machine unless somebody moved it")
}

// tlsCertificates verifies servers' certificates in a handshake.
func tlsCertificates(ctx context.Context, t *Target) Finding {
	config := t.goodTLS()
	config.Time = t.Now
	var problems, due []string
	for _, e := range t.endpoints() {
		state, err := t.handshake(ctx, e, config)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", e.name, err))
		} else if identity.Due(state.PeerCertificates[0], t.Now()) {
			due = append(due, e.name)
		}
	}
	files := must(filepath.Glob(filepath.Join(t.bundles(), "*", "device.crt")))
	for _, file := range files {
		certificate, _ := identity.DeviceCertificate(filepath.Dir(file), true)
		switch {
		case certificate == nil:
			problems = append(problems, file+" cannot be read")
		case t.Now().After(certificate.NotAfter):
			problems = append(problems, file+" has expired")
		case identity.Due(certificate, t.Now()):
			due = append(due, file)
		}
	}
	if len(problems) == 0 && len(due) > 0 {
		return warning("renewal is due: %s", strings.Join(due, ", "))
	}
	return verdict(problems, "the certificates of %d servers and %d devices are valid", len(t.endpoints()), len(files))
}

// tlsRevocation reads the file that the broker reads.
func tlsRevocation(ctx context.Context, t *Target) Finding {
	need(!t.Containers, "the broker's lists are in a volume; the registrar raises an alarm before one expires")
	lists := must(identity.ParseLists(must(os.ReadFile(t.path("mosquitto", "devices.crl")))))
	authorities := must(must(identity.OpenAuthority(t.path("pki"))).Authorities(ctx))
	var problems []string
	for _, issuer := range authorities.Issuing {
		if !slices.ContainsFunc(lists, func(l *x509.RevocationList) bool { return l.CheckSignatureFrom(issuer) == nil }) {
			problems = append(problems, "there is no list of "+issuer.Subject.CommonName)
		}
	}
	for _, list := range lists { // also those of other issuers, such as Vault
		if t.Now().After(list.NextUpdate) {
			problems = append(problems, fmt.Sprintf("the list of %s expired %s", list.Issuer.CommonName, list.NextUpdate.Format(time.RFC3339)))
		}
	}
	return verdict(problems, "%d lists, all valid", len(lists))
}

// selfSigned is a certificate that no CA signed.
func selfSigned(name string, now time.Time) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
