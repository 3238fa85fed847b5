package identity

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

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
func (b *Bundle) Write(folder string) (err error) {
	defer wrap(&err, "writing device bundle")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	config, err := json.MarshalIndent(deviceConfig{
		ClientID: b.MAC.Dashed(), SerialNumber: b.SerialNumber,
		CAFile: deviceTrustFile, CertFile: DeviceCertificateFile, KeyFile: deviceKeyFile,
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, deviceTrustFile), b.Trusted, 0o644); err != nil { //nolint:gosec // certificates are public
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, deviceConfigFile), append(config, '\n'), 0o600); err != nil {
		return err
	}
	if err := b.writeKey(folder); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, DeviceCertificateFile), b.Chain(), 0o644) //nolint:gosec // a certificate is public
}

// writeKey removes an earlier key that does not belong to the certificate.
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
