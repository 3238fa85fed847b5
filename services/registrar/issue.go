package registrar

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// order is a certificate to be made, and where its result goes.
type order struct {
	origin       Origin
	mac          topic.MAC
	serialNumber string
	csr          *x509.CertificateRequest // nil: we make the key
	result       *RequestResult
	staged       string
}

// issue signs and stages. What goes wrong with one order alone is in its result;
// those that are done are returned.
func (c *change) issue(ctx context.Context, orders []*order) ([]*order, error) {
	trusted, err := c.trusted()
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, o := range orders {
		group.Go(func() error {
			o.result.Err = c.carryOut(ctx, o, trusted)
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		c.collect(orders)
		return nil, err
	}
	done := c.collect(orders)
	if err := c.flush(done); err != nil {
		return nil, err
	}
	c.reached("staged")
	return done, nil
}

// collect notes what was staged.
func (c *change) collect(orders []*order) (done []*order) {
	for _, o := range orders {
		if o.staged != "" {
			c.staged = append(c.staged, o.staged)
		}
		if o.result.Err == nil && o.staged != "" {
			done = append(done, o)
		}
	}
	return done
}

func (c *change) carryOut(ctx context.Context, o *order, trusted []byte) error {
	var key crypto.Signer
	csr := o.csr
	if csr == nil {
		var err error
		if key, csr, err = identity.NewRequest(); err != nil {
			return err
		}
	}
	signed, err := c.cfg.Issuer.SignDevice(ctx, csr, o.mac, o.serialNumber)
	if err != nil {
		return err
	}
	o.staged, err = c.stage(&identity.Bundle{MAC: o.mac, SerialNumber: o.serialNumber, Signed: signed, Trusted: trusted, Key: key})
	if err != nil {
		return err
	}
	o.result.Certificate, o.result.Issuer, o.result.Issued = signed.Certificate, signed.Issuer, true
	o.result.Device = Device{
		MAC: o.mac, SerialNumber: o.serialNumber, Status: Active, Certificate: serialOf(signed.Certificate),
		Fingerprint: fingerprintOf(sha256.Sum256(signed.Certificate.Raw)), Issuer: identity.KeyID(signed.Issuer),
		NotBefore: signed.Certificate.NotBefore, NotAfter: signed.Certificate.NotAfter, OwnKey: o.csr != nil,
		RegisteredAt: c.now,
	}
	return nil
}

// enter writes the certificates and makes them the devices' current ones.
func (c *change) enter(ctx context.Context, done []*order) error {
	n := len(done)
	if n == 0 {
		return nil
	}
	mac, number, issuer, serial, fingerprint := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	before, after, own := make([]time.Time, n), make([]time.Time, n), make([]bool, n)
	for i, o := range done {
		d := &o.result.Device
		mac[i], number[i], issuer[i], serial[i], fingerprint[i] = string(d.MAC), d.SerialNumber, d.Issuer, d.Certificate, d.Fingerprint
		before[i], after[i], own[i] = d.NotBefore, d.NotAfter, d.OwnKey
	}
	if _, err := c.tx.Exec(ctx, `
INSERT INTO certificate (issuer, serial, mac, fingerprint, not_before, not_after)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])`,
		issuer, serial, mac, fingerprint, before, after); err != nil {
		return fmt.Errorf("changing the registry: %w", err)
	}
	if _, err := c.tx.Exec(ctx, `
INSERT INTO device (mac, serial_number, status, issuer, serial, own_key, registered_at)
SELECT mac, number, 'active', issuer, serial, own, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[]) AS new (mac, number, issuer, serial, own)
ON CONFLICT (mac) DO UPDATE SET serial_number = excluded.serial_number, status = 'active', issuer = excluded.issuer,
    serial = excluded.serial, own_key = excluded.own_key, renewed_at = $6, revoked_at = NULL`,
		mac, number, issuer, serial, own, c.now); err != nil {
		return fmt.Errorf("changing the registry: %w", err)
	}
	return nil
}

// revokeCertificates revokes what is still valid of the devices' certificates, and
// has their sessions ended.
func (c *change) revokeCertificates(ctx context.Context, reason Reason, macs []topic.MAC) error {
	if len(macs) == 0 {
		return nil
	}
	if _, err := c.tx.Exec(ctx, `
UPDATE certificate SET revoked_at = $1, reason = $2
WHERE mac = ANY($3) AND revoked_at IS NULL AND not_after > $1`, c.now, int(reason), macs); err != nil {
		return fmt.Errorf("changing the registry: %w", err)
	}
	if _, err := c.tx.Exec(ctx, "INSERT INTO eviction SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", macs); err != nil {
		return fmt.Errorf("changing the registry: %w", err)
	}
	return nil
}
