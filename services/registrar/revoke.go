package registrar

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Reason is why a certificate was revoked (RFC 5280 5.3.1).
type Reason int

// The reasons that are used here.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
)

var reasonNames = map[Reason]string{
	Unspecified: "unspecified", KeyCompromise: "key-compromise", Superseded: "superseded", CessationOfOperation: "cessation-of-operation",
}

// String is the reason as the command line has it.
func (r Reason) String() string { return reasonNames[r] }

// UnmarshalText reads what String writes.
func (r *Reason) UnmarshalText(text []byte) error {
	for reason, name := range reasonNames {
		if strings.EqualFold(name, string(text)) {
			*r = reason
			return nil
		}
	}
	return fmt.Errorf("%q is not a reason: take unspecified, key-compromise, superseded or cessation-of-operation", text)
}

// Revoke shuts devices out: the access control list, the revocation list, and the
// live session. It returns once all three are in force. Either all devices are
// revoked or, if the registry lacks one (ErrUnknown), none; one that is revoked
// already stays as it is.
func (r *Registrar) Revoke(ctx context.Context, origin Origin, reason Reason, macs ...topic.MAC) ([]Device, error) {
	var revoked []Device
	err := r.change(ctx, origin, func(ctx context.Context, c *change) error {
		registered, err := known(ctx, c.tx, macs)
		if err != nil {
			return err
		}
		var out []topic.MAC
		for _, mac := range macs {
			device, ok := registered[mac]
			switch {
			case !ok:
				return fmt.Errorf("%s: %w", mac.Dashed(), ErrUnknown)
			case slices.Contains(out, mac) || device.Status == Revoked:
				continue
			}
			out = append(out, mac)
			c.record(RevokeAction, mac, device.Certificate, reason.String())
		}
		if err := c.revokeCertificates(ctx, reason, out); err != nil {
			return err
		}
		if _, err := c.tx.Exec(ctx, "UPDATE device SET status = 'revoked', revoked_at = $1 WHERE mac = ANY($2)", c.now, out); err != nil {
			return fmt.Errorf("changing the registry: %w", err)
		}
		revoked, err = devices(ctx, c.tx, "WHERE d.mac = ANY($1) ORDER BY d.mac", macs)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("revoking: %w", err)
	}
	return revoked, nil
}

// Check tells whether a certificate that is valid by itself still counts: ErrUnknown
// or ErrRevoked if its device, or this certificate of it, does not.
func (r *Registrar) Check(ctx context.Context, mac topic.MAC, certificate *x509.Certificate) error {
	return counts(ctx, r.cfg.Pool, mac, certificate)
}

func counts(ctx context.Context, q rowAsker, mac topic.MAC, certificate *x509.Certificate) error {
	s, err := readStanding(ctx, q, mac, fmt.Sprintf("%x", certificate.AuthorityKeyId), serialOf(certificate))
	switch {
	case errors.Is(err, ErrUnknown):
		return fmt.Errorf("%s: %w", mac.Dashed(), ErrUnknown)
	case err != nil:
		return fmt.Errorf("reading the registry: %w", err)
	case s.status == Revoked || s.revoked:
		return fmt.Errorf("%s: %w", mac.Dashed(), ErrRevoked)
	}
	return nil
}

// IssuerRotator makes and retires issuing CAs; *identity.Authority does.
type IssuerRotator interface {
	Rotate(ctx context.Context, rootKeyFile string) (*x509.Certificate, error)
	Retire(ctx context.Context, issuer *x509.Certificate) error
}

// RotateIssuer makes a new issuing CA, which signs from now on. Certificates of the
// old one stay valid; Refresh retires it once the last of them has run out or been
// revoked. rootKeyFile is where the root's key is, "" for its usual place.
func (r *Registrar) RotateIssuer(ctx context.Context, origin Origin, rootKeyFile string) (*x509.Certificate, error) {
	rotator, ok := r.cfg.Issuer.(IssuerRotator)
	if !ok {
		return nil, errors.New("rotating the issuing CA: the issuer does that itself, and the registrar follows by itself")
	}
	var issuer *x509.Certificate
	err := r.change(ctx, origin, func(ctx context.Context, c *change) (err error) {
		if issuer, err = rotator.Rotate(ctx, rootKeyFile); err != nil {
			return err
		}
		c.record(RotateAction, "", serialOf(issuer), issuer.Subject.CommonName)
		c.authorities, err = r.cfg.Issuer.Authorities(ctx)
		return err
	})
	return issuer, err
}

// Refresh issues the revocation list anew if a third of its life is over, retires
// issuing CAs that nobody needs, and finishes what an operation that died has left.
// It answers when the first of the lists in force ends.
func (r *Registrar) Refresh(ctx context.Context) (nextUpdate time.Time, err error) {
	err = r.change(ctx, Origin{Actor: "registrar"}, func(ctx context.Context, c *change) error { return c.retire(ctx) })
	if err != nil {
		return time.Time{}, fmt.Errorf("refreshing: %w", err)
	}
	return r.NextUpdate()
}

// NextUpdate answers when the first of the revocation lists in force ends.
func (r *Registrar) NextUpdate() (time.Time, error) {
	text, err := r.cfg.Gate.CRLs()
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the revocation lists in place: %w", err)
	}
	lists, err := identity.ParseLists(text)
	if err != nil {
		return time.Time{}, err
	}
	var next time.Time
	for _, list := range lists {
		if next.IsZero() || list.NextUpdate.Before(next) {
			next = list.NextUpdate
		}
	}
	return next, nil
}

// retire takes away issuing CAs, but for the one that signs, of which no active
// device has a valid certificate.
func (c *change) retire(ctx context.Context) error {
	rotator, ok := c.cfg.Issuer.(IssuerRotator)
	if !ok {
		return nil
	}
	for _, issuer := range c.authorities.Issuing[1:] {
		var needed bool
		if err := c.tx.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM certificate WHERE issuer = $1 AND revoked_at IS NULL AND not_after > $2)`,
			identity.KeyID(issuer), c.now).Scan(&needed); err != nil {
			return fmt.Errorf("reading the registry: %w", err)
		}
		if needed {
			continue
		}
		if err := rotator.Retire(ctx, issuer); err != nil {
			return err
		}
		c.record(RotateAction, "", serialOf(issuer), "retired: "+issuer.Subject.CommonName)
	}
	var err error
	c.authorities, err = c.cfg.Issuer.Authorities(ctx)
	return err
}
