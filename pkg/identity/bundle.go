package identity

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Files of a device's bundle.
const (
	// DeviceCertificateFile has the device's certificate, then its issuer's.
	DeviceCertificateFile = "device.crt"
	deviceKeyFile         = "device.key"
	deviceTrustFile       = "ca.crt"
	deviceConfigFile      = "mqtt_config.json"
)

// BundleFiles are the files of a bundle. A device that made its own key has no
// device.key here.
func BundleFiles() []string {
	return []string{DeviceCertificateFile, deviceKeyFile, deviceTrustFile, deviceConfigFile}
}

// Bundle is what a device is given.
type Bundle struct {
	MAC          topic.MAC
	SerialNumber string // on the device's label
	Signed
	Trusted []byte        // the CAs of the servers, PEM
	Key     crypto.Signer // nil if the key was made on the device
}

// deviceConfig is what a controller's own tools read beside its certificate.
type deviceConfig struct {
	ClientID     string `json:"client_id"`
	SerialNumber string `json:"serial_number"`
	CAFile       string `json:"ca_file"`
	CertFile     string `json:"cert_file"`
	KeyFile      string `json:"key_file"`
}

// Write makes the folder and the bundle in it, the certificate last. It does not
// wait for the disk.
func (b *Bundle) Write(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("writing device bundle: %w", err)
	}
	config, err := json.MarshalIndent(deviceConfig{
		ClientID: b.MAC.Dashed(), SerialNumber: b.SerialNumber,
		CAFile: deviceTrustFile, CertFile: DeviceCertificateFile, KeyFile: deviceKeyFile,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("writing device bundle: %w", err)
	}
	for _, file := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{deviceTrustFile, b.Trusted, 0o644},
		{deviceConfigFile, append(config, '\n'), 0o600},
	} {
		if err := os.WriteFile(filepath.Join(folder, file.name), file.data, file.mode); err != nil {
			return fmt.Errorf("writing device bundle: %w", err)
		}
	}
	if err := b.writeKey(folder); err != nil {
		return fmt.Errorf("writing device bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, DeviceCertificateFile), b.Chain(), 0o644); err != nil { //nolint:gosec // a certificate is public
		return fmt.Errorf("writing device bundle: %w", err)
	}
	return nil
}

// writeKey leaves no earlier key beside a certificate that it does not fit.
func (b *Bundle) writeKey(folder string) error {
	path := filepath.Join(folder, deviceKeyFile)
	if b.Key == nil {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := encodeKey(b.Key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// DeviceCertificate reads the certificate of a bundle, and whether all that belongs
// to the bundle is there and fits: the key too, if it was made here.
func DeviceCertificate(folder string, ownKey bool) (certificate *x509.Certificate, complete bool) {
	certificate, err := readCertificate(filepath.Join(folder, DeviceCertificateFile))
	if err != nil {
		return nil, false
	}
	for _, name := range []string{deviceTrustFile, deviceConfigFile} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			return certificate, false
		}
	}
	if ownKey {
		return certificate, true
	}
	key, err := readKey(filepath.Join(folder, deviceKeyFile))
	return certificate, err == nil && matches(certificate, key)
}

// deviceTemplate describes the certificate of a device. The common name is the MAC
// with dashes, which Mosquitto takes as the user name.
func deviceTemplate(mac topic.MAC, serialNumber string) *x509.Certificate {
	t := template(pkix.Name{CommonName: mac.Dashed(), SerialNumber: serialNumber}, leafLife)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return t
}

// Due reports whether the certificate should be renewed: two thirds of its life
// are over (design 9).
func Due(certificate *x509.Certificate, now time.Time) bool { return !fresh(certificate, now) }
