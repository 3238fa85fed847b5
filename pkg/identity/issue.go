package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/f2mesh/f2mesh/pkg/topic"
)

const leafLife = 365 * 24 * time.Hour

// IssueServer writes a certificate chain and its key for a server that clients
// reach under names (DNS names and IP addresses). A pair that is there, covers
// the names, and is less than two thirds through its year is kept.
func (a *Authority) IssueServer(certFile, keyFile string, names []string) error {
	if a.keepServer(certFile, keyFile, names) {
		return nil
	}
	t := template(pkix.Name{CommonName: "f2mesh server"}, leafLife)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
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

// deviceConfig is what a controller's own tools read beside its certificate.
type deviceConfig struct {
	ClientID     string `json:"client_id"`
	SerialNumber string `json:"serial_number"`
	CAFile       string `json:"ca_file"`
	CertFile     string `json:"cert_file"`
	KeyFile      string `json:"key_file"`
}

// IssueDevice makes the bundle of a controller in dir/<MAC with dashes>:
// device.crt (with the issuing CA), device.key, ca.crt and mqtt_config.json.
// The certificate's common name is the MAC with dashes, which Mosquitto takes as
// the user name. A bundle that is complete, ours, and less than two thirds
// through its year is kept; created says whether a new one was made.
func (a *Authority) IssueDevice(dir string, mac topic.MAC, serialNumber string) (created bool, err error) {
	name := mac.Dashed()
	folder := filepath.Join(dir, name)
	certFile, keyFile := filepath.Join(folder, "device.crt"), filepath.Join(folder, "device.key")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return false, fmt.Errorf("issuing device certificate: %w", err)
	}
	if kept, ok := a.usable(certFile, keyFile); ok && kept.Subject.CommonName == name && complete(folder) {
		return false, nil
	}
	t := template(pkix.Name{CommonName: name, SerialNumber: serialNumber}, leafLife)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if err := a.writeBundle(folder, name, serialNumber); err != nil {
		return false, fmt.Errorf("issuing device certificate: %w", err)
	}
	if err := a.issue(t, certFile, keyFile); err != nil {
		return false, fmt.Errorf("issuing device certificate: %w", err)
	}
	return true, nil
}

// complete reports whether the folder holds what writeBundle writes.
func complete(folder string) bool {
	for _, name := range []string{"ca.crt", "mqtt_config.json"} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			return false
		}
	}
	return true
}

// writeBundle writes what stands beside certificate and key.
func (a *Authority) writeBundle(folder, name, serialNumber string) error {
	trusted, err := os.ReadFile(a.CAFile())
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(folder, "ca.crt"), trusted, 0o644); err != nil {
		return err
	}
	config, err := json.MarshalIndent(deviceConfig{
		ClientID: name, SerialNumber: serialNumber,
		CAFile: "ca.crt", CertFile: "device.crt", KeyFile: "device.key",
	}, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(folder, "mqtt_config.json"), append(config, '\n'), 0o600)
}

// issue signs the template for a new key and writes the pair, the issuing CA
// behind the certificate.
func (a *Authority) issue(t *x509.Certificate, certFile, keyFile string) error {
	certificate, key, err := sign(t, a.issuer, a.key)
	if err != nil {
		return err
	}
	chain := append(encodeCertificate(certificate), encodeCertificate(a.issuer)...)
	return writePair(certFile, keyFile, chain, key)
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
	return certificate, a.signedBy(certificate) && fresh(certificate, time.Now())
}
