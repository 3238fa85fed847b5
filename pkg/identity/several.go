package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Several are issuers of which the first signs devices' certificates, while those
// that the others have signed stay good.
type Several []Issuer

// Authorities are those of all.
func (s Several) Authorities(ctx context.Context) (Authorities, error) {
	var all Authorities
	for _, one := range s {
		its, err := one.Authorities(ctx)
		if err != nil {
			return Authorities{}, err
		}
		all.Roots = union(all.Roots, its.Roots)
		all.Issuing = union(all.Issuing, its.Issuing)
	}
	return all, nil
}

func union(all, more []*x509.Certificate) []*x509.Certificate {
	for _, c := range more {
		if !slices.ContainsFunc(all, c.Equal) {
			all = append(all, c)
		}
	}
	return all
}

// SignDevice has the first sign.
func (s Several) SignDevice(ctx context.Context, csr *x509.CertificateRequest, mac topic.MAC, serialNumber string) (Signed, error) {
	return s[0].SignDevice(ctx, csr, mac, serialNumber)
}

// SignList has the issuer sign whose CA it is.
func (s Several) SignList(ctx context.Context, issuer *x509.Certificate, list *x509.RevocationList) ([]byte, error) {
	var failed error
	for _, one := range s {
		its, err := one.Authorities(ctx)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(its.Issuing, issuer.Equal) {
			continue
		}
		der, err := one.SignList(ctx, issuer, list)
		if err == nil {
			return der, nil
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return nil, failed
	}
	return nil, errNoIssuer(issuer)
}
