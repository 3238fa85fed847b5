package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// Certificates are valid from an hour ago, for controllers whose clock is late.
const backdate = time.Hour

const serialBits = 128

// template describes a certificate with all but its purpose. A nil serial is
// set by sign.
func template(subject pkix.Name, life time.Duration) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:   subject,
		NotBefore: now.Add(-backdate).Truncate(time.Second),
		NotAfter:  now.Add(life).Truncate(time.Second),
	}
}

// sign makes a new key and a certificate for it. Without a signer it signs itself.
func sign(t, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	if signer == nil {
		signer = key
	}
	certificate, err := certify(t, parent, &key.PublicKey, signer)
	return certificate, key, err
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating key: %w", err)
	}
	return key, nil
}

// certify signs the template for the public key, under a random serial number.
// A certificate never outlives the one that signed it: clients would refuse it.
func certify(t, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("choosing serial number: %w", err)
	}
	t.SerialNumber = serial.Add(serial, big.NewInt(1)) // RFC 5280 4.1.2.2: positive
	if t.NotAfter.After(parent.NotAfter) {
		t.NotAfter = parent.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// matches reports whether the key is the certificate's.
func matches(certificate *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(certificate.PublicKey)
}

// Due reports whether a certificate should be renewed: two thirds of its life are over
// (design 9).
func Due(certificate *x509.Certificate, now time.Time) bool {
	life := certificate.NotAfter.Sub(certificate.NotBefore)
	return !now.After(certificate.NotBefore) || !now.Before(certificate.NotBefore.Add(life/3*2))
}

// signedBy reports whether the issuing CA that signs now signed the certificate.
func (a *Authority) signedBy(certificate *x509.Certificate) bool {
	return certificate.CheckSignatureFrom(a.current().certificate) == nil
}
