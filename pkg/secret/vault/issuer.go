package vault

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// PKIIssuer has Vault's PKI engine sign devices' certificates and revocation lists: the
// issuing CA's key never leaves Vault. It is an identity.Issuer, safe for concurrent
// use.
type PKIIssuer struct {
	client *Client
	mount  string
}

// NewIssuer uses the engine at mount, as `f2mesh vault bootstrap --pki` prepares it,
// with the rights of client: the registrar's.
func NewIssuer(client *Client, mount string) *PKIIssuer {
	return &PKIIssuer{client: client, mount: mount}
}

// issuerDefault is the issuer that signs.
const issuerDefault = "default"

// Authorities returns the engine's issuers, the one that signs first. Vault shows
// them to everybody.
func (i *PKIIssuer) Authorities(ctx context.Context) (identity.Authorities, error) {
	all, _, err := i.authorities(ctx)
	if err != nil {
		return all, fmt.Errorf("reading the issuers of Vault's %s/: %w", i.mount, err)
	}
	return all, nil
}

// authorities returns the ids in Vault, too, by key identifier.
func (i *PKIIssuer) authorities(ctx context.Context) (all identity.Authorities, ids map[string]string, err error) {
	var keys []string
	err = i.client.do(ctx, func(c *api.Client) (err error) {
		keys, err = listKeys(ctx, c, i.mount+"/issuers")
		return err
	})
	if err != nil {
		return all, nil, err
	}
	ids = map[string]string{}
	for _, name := range append([]string{issuerDefault}, keys...) {
		certificate, err := i.issuer(ctx, name)
		if err != nil {
			return all, nil, err
		}
		ids[identity.KeyID(certificate)] = name
		switch {
		case slices.ContainsFunc(all.All(), certificate.Equal): // the default has an id as well
		case name != issuerDefault && certificate.CheckSignatureFrom(certificate) == nil:
			all.Roots = append(all.Roots, certificate)
		default:
			all.Issuing = append(all.Issuing, certificate)
		}
	}
	return all, ids, nil
}

func (i *PKIIssuer) issuer(ctx context.Context, name string) (*x509.Certificate, error) {
	answer, err := i.client.Read(ctx, i.mount+"/issuer/"+name+"/json")
	if err != nil {
		return nil, err
	}
	return certificateIn(answer, "certificate")
}

func certificateIn(answer map[string]any, key string) (*x509.Certificate, error) {
	text, _ := answer[key].(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("vault's response contains no %s", key)
	}
	return x509.ParseCertificate(block.Bytes)
}

// SignDevice has the role sign that is for the kind of key, and looks at what it has signed: a role that
// somebody has changed must not give a device another's name.
func (i *PKIIssuer) SignDevice(ctx context.Context, csr *x509.CertificateRequest, mac topic.MAC, serialNumber string) (identity.Signed, error) {
	role := roleDevice
	if _, ok := csr.PublicKey.(*rsa.PublicKey); ok {
		role = roleDeviceRSA
	}
	answer, err := i.client.Write(ctx, i.mount+"/sign/"+role, map[string]any{
		"csr":         string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw})),
		"common_name": mac.Dashed(), "serial_number": serialNumber, "exclude_cn_from_sans": true,
	})
	if err != nil {
		return identity.Signed{}, fmt.Errorf("having Vault issue a device certificate: %w", err)
	}
	certificate, err := certificateIn(answer, "certificate")
	if err != nil {
		return identity.Signed{}, fmt.Errorf("having Vault issue a device certificate: %w", err)
	}
	issuer, err := certificateIn(answer, "issuing_ca")
	if err != nil {
		return identity.Signed{}, fmt.Errorf("having Vault issue a device certificate: %w", err)
	}
	if err := checkSigned(certificate, issuer, csr.PublicKey, mac); err != nil {
		return identity.Signed{}, fmt.Errorf("checking what Vault's role %s has signed: %w", role, err)
	}
	return identity.Signed{Certificate: certificate, Issuer: issuer}, nil
}

func checkSigned(c, issuer *x509.Certificate, key crypto.PublicKey, mac topic.MAC) error {
	public, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	names := len(c.DNSNames) + len(c.IPAddresses) + len(c.EmailAddresses) + len(c.URIs)
	switch {
	case c.Subject.CommonName != mac.Dashed():
		return fmt.Errorf("its common name is %q, not %q", c.Subject.CommonName, mac.Dashed())
	case !ok || !public.Equal(key):
		return errors.New("its key differs from the request's")
	case c.IsCA || names > 0 || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}):
		return errors.New("it allows more than the login of a device")
	}
	return c.CheckSignatureFrom(issuer)
}

// SignList has the issuer sign whose certificate it is.
func (i *PKIIssuer) SignList(ctx context.Context, issuer *x509.Certificate, list *x509.RevocationList) ([]byte, error) {
	_, ids, err := i.authorities(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the issuers of Vault's %s/: %w", i.mount, err)
	}
	id, ok := ids[identity.KeyID(issuer)]
	if !ok {
		return nil, fmt.Errorf("signing revocation list: Vault's %s/ has no issuing CA %s", i.mount, identity.KeyID(issuer))
	}
	entries, err := revokedEntries(list.RevokedCertificateEntries)
	if err != nil {
		return nil, fmt.Errorf("signing revocation list: %w", err)
	}
	answer, err := i.client.Write(ctx, i.mount+"/issuer/"+id+"/sign-revocation-list", map[string]any{
		"crl_number": list.Number.Int64(), "next_update": list.NextUpdate.Sub(list.ThisUpdate).Round(time.Second).String(),
		"format": "pem", "revoked_certs": entries,
	})
	if err != nil {
		return nil, fmt.Errorf("having Vault sign a revocation list: %w", err)
	}
	text, _ := answer["crl"].(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("having Vault sign a revocation list: its response contains none")
	}
	return block.Bytes, nil
}

// reasonCode is the extension of an entry (RFC 5280 5.3.1).
const reasonCode = "2.5.29.21"

func revokedEntries(list []x509.RevocationListEntry) ([]any, error) {
	entries := make([]any, len(list))
	for i, e := range list {
		entry := map[string]any{
			"serial_number": colons(e.SerialNumber), "revocation_time": e.RevocationTime.Format(time.RFC3339),
		}
		if e.ReasonCode != 0 { // 0 is encoded by leaving it out
			der, err := asn1.Marshal(asn1.Enumerated(e.ReasonCode))
			if err != nil {
				return nil, err
			}
			entry["extensions"] = []any{map[string]any{"id": reasonCode, "critical": false, "value": base64.StdEncoding.EncodeToString(der)}}
		}
		entries[i] = entry
	}
	return entries, nil
}

// colons is a serial number as Vault writes it.
func colons(serial *big.Int) string {
	var out bytes.Buffer
	for _, b := range serial.Bytes() {
		fmt.Fprintf(&out, ":%02x", b)
	}
	return strings.TrimPrefix(out.String(), ":")
}
