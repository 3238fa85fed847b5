package identity

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

const leafLife = 365 * 24 * time.Hour

// IssueServer writes a certificate chain and its key for a server that clients
// reach under names (DNS names and IP addresses). A pair that is there, covers
// the names, and is less than two thirds through its year is kept.
func (a *Authority) IssueServer(certFile, keyFile string, names []string) error {
	return a.issueServer(certFile, keyFile, names, x509.ExtKeyUsageServerAuth)
}

// IssuePeer is IssueServer for servers that connect to each other: each end of a
// connection shows the certificate.
func (a *Authority) IssuePeer(certFile, keyFile string, names []string) error {
	return a.issueServer(certFile, keyFile, names, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

func (a *Authority) issueServer(certFile, keyFile string, names []string, usages ...x509.ExtKeyUsage) error {
	if a.keepServer(certFile, keyFile, names) {
		return nil
	}
	t := template(pkix.Name{CommonName: "f2mesh server"}, leafLife)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = usages
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	if err := a.issue(t, certFile, keyFile); err != nil {
		return fmt.Errorf("issuing server certificate: %w", err)
	}
	return nil
}

func (a *Authority) keepServer(certFile, keyFile string, names []string) bool {
	certificate, ok := a.usable(certFile, keyFile)
	if !ok {
		return false
	}
	for _, name := range names {
		if certificate.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

// IssueDevice makes the bundle of a controller in dir/<MAC with dashes>, without a
// registry: for tests and trials. A bundle that is complete, ours, and less than two
// thirds through its year is kept; created says whether a new one was made.
func (a *Authority) IssueDevice(dir string, mac topic.MAC, serialNumber string) (created bool, err error) {
	folder := filepath.Join(dir, mac.Dashed())
	if kept, complete := DeviceCertificate(folder, false); complete && a.signedBy(kept) && !Due(kept, time.Now()) {
		return false, nil
	}
	key, csr, err := NewRequest()
	if err != nil {
		return false, err
	}
	signed, err := a.SignDevice(context.Background(), csr, mac, serialNumber)
	if err != nil {
		return false, err
	}
	bundle := Bundle{MAC: mac, SerialNumber: serialNumber, Signed: signed, Trusted: a.loaded.Load().authorities().Bundle(), Key: key}
	return true, bundle.Write(folder)
}

// issue signs the template for a new key and writes the pair, the issuing CA
// behind the certificate.
func (a *Authority) issue(t *x509.Certificate, certFile, keyFile string) error {
	by := a.current()
	certificate, key, err := sign(t, by.certificate, by.key)
	if err != nil {
		return err
	}
	return writePair(certFile, keyFile, Signed{certificate, by.certificate}.Chain(), key)
}

// usable reads a pair and reports whether it is ours, complete, and fresh.
func (a *Authority) usable(certFile, keyFile string) (*x509.Certificate, bool) {
	certificate, err := readCertificate(certFile)
	if err != nil {
		return nil, false
	}
	key, err := readKey(keyFile)
	if err != nil || !matches(certificate, key) {
		return nil, false
	}
	return certificate, a.signedBy(certificate) && !Due(certificate, time.Now())
}
