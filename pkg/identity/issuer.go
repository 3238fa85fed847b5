package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Issuer signs devices' certificates and the lists of those that are revoked. An
// Authority is one.
type Issuer interface {
	// Authorities returns the CAs that devices' certificates may come from.
	Authorities(ctx context.Context) (Authorities, error)
	// SignDevice signs the public key of a request that CheckRequest has passed.
	SignDevice(ctx context.Context, csr *x509.CertificateRequest, mac topic.MAC, serialNumber string) (Signed, error)
	// SignList signs a revocation list of one of the issuing CAs, in DER.
	SignList(ctx context.Context, issuer *x509.Certificate, list *x509.RevocationList) ([]byte, error)
}

// Signed is a new certificate and the issuing CA that signed it.
type Signed struct {
	Certificate, Issuer *x509.Certificate
}

// Chain is the certificate and its issuing CA in PEM, as a device presents them.
func (s Signed) Chain() []byte {
	return append(encodeCertificate(s.Certificate), encodeCertificate(s.Issuer)...)
}

// Authorities are the CAs that devices' certificates may come from.
type Authorities struct {
	Roots []*x509.Certificate // which sign no devices; none where an issuing CA is its own root
	// Issuing are the issuing CAs in use, the one that signs now first.
	Issuing []*x509.Certificate
}

// Bundle is all of them in PEM.
func (a Authorities) Bundle() []byte {
	var all []byte
	for _, c := range a.All() {
		all = append(all, encodeCertificate(c)...)
	}
	return all
}

// All is all of them, the roots first.
func (a Authorities) All() []*x509.Certificate { return slices.Concat(a.Roots, a.Issuing) }

// KeyID names an issuing CA: its subject key identifier in lower-case hex.
func KeyID(issuer *x509.Certificate) string { return hex.EncodeToString(issuer.SubjectKeyId) }

// Authorities reads the folder again, since another process may have rotated.
func (a *Authority) Authorities(context.Context) (Authorities, error) {
	if err := a.load(); err != nil {
		return Authorities{}, fmt.Errorf("reading certificate authority: %w", err)
	}
	return a.loaded.Load().authorities(), nil
}

// SignDevice signs by the newest issuing CA that Authorities has read.
func (a *Authority) SignDevice(_ context.Context, csr *x509.CertificateRequest, mac topic.MAC, serialNumber string) (Signed, error) {
	by := a.current()
	certificate, err := certify(deviceTemplate(mac, serialNumber), by.certificate, csr.PublicKey, by.key)
	wrap(&err, "issuing device certificate")
	return Signed{Certificate: certificate, Issuer: by.certificate}, err
}

// SignList signs with the key of the issuing CA, which may be an earlier one.
func (a *Authority) SignList(_ context.Context, issuer *x509.Certificate, list *x509.RevocationList) ([]byte, error) {
	for _, one := range a.loaded.Load().issuers {
		if one.certificate.Equal(issuer) {
			der, err := x509.CreateRevocationList(rand.Reader, list, issuer, one.key)
			wrap(&err, "signing revocation list")
			return der, err
		}
	}
	return nil, errNoIssuer(issuer)
}

func errNoIssuer(issuer *x509.Certificate) error {
	return fmt.Errorf("signing revocation list: no key of issuing CA %s", KeyID(issuer))
}

// EncodeList is a revocation list in PEM.
func EncodeList(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// ParseLists reads the revocation lists of a PEM file.
func ParseLists(text []byte) (all []*x509.RevocationList, err error) {
	defer wrap(&err, "reading revocation lists")
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "X509 CRL" {
			return nil, errNoPEM
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		all, text = append(all, list), rest
	}
	return all, nil
}
