package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// ErrRequest means that a certificate request is not acceptable from anybody.
var ErrRequest = errors.New("unacceptable certificate request")

// Bounds of RSA keys. A larger key is slow to check.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

const maxRequestSize = 64 << 10 // of a file; the largest acceptable key needs a tenth

// CheckRequest reports whether the request may be signed: it proves possession of
// its key, and the key is ECDSA P-256 or P-384, or RSA of 2,048 to 8,192 bits. Name
// and extensions do not matter, they are not taken over. Errors are ErrRequest.
func CheckRequest(csr *x509.CertificateRequest) error {
	if err := checkKey(csr.PublicKey); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return nil
}

func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("an ECDSA key on %s: P-256 and P-384 are accepted", key.Curve.Params().Name)
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("an RSA key of %d bits: %d to %d are accepted", bits, minRSABits, maxRSABits)
		}
		return nil
	default:
		return fmt.Errorf("a key of type %T: ECDSA and RSA are accepted", key)
	}
}

// ParseRequest reads a certificate request in PEM. Errors are ErrRequest.
func ParseRequest(text []byte) (*x509.CertificateRequest, error) {
	if len(text) > maxRequestSize {
		return nil, fmt.Errorf("%w: more than %d KiB", ErrRequest, maxRequestSize>>10)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, fmt.Errorf("%w: %w", ErrRequest, errNoPEM)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return csr, nil
}

// NewRequest makes a key, ECDSA P-256, and a request for it.
func NewRequest() (crypto.Signer, *x509.CertificateRequest, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("making certificate request: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	return key, csr, err
}
