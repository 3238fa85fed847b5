package simulator

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// loadIdentity returns a controller's TLS configuration. It has no session cache: a
// controller that resumed another's session would have the other's identity.
func loadIdentity(devices string, mac topic.MAC, roots *x509.CertPool, server string) (*tls.Config, error) {
	dir := filepath.Join(devices, mac.Dashed())
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "device.crt"), filepath.Join(dir, "device.key"))
	if err != nil {
		return nil, fmt.Errorf("loading certificate of %s: %w", mac, err)
	}
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		RootCAs:                     roots,
		ServerName:                  server,
		Certificates:                []tls.Certificate{pair},
		DynamicRecordSizingDisabled: true, // writes are large
	}, nil
}
