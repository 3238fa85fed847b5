package registrar

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

// prepareLists checks the broker's lists that follow from the registry.
func (c *change) prepareLists(ctx context.Context) (*mosquitto.CheckedLists, error) {
	active, err := macs(ctx, c.tx, "SELECT mac FROM device WHERE status = 'active' ORDER BY registered_at, mac")
	if err != nil {
		return nil, err
	}
	if err := c.checkIssuers(ctx); err != nil {
		return nil, err
	}
	crls, err := c.revocationLists(ctx)
	if err != nil {
		return nil, err
	}
	return c.cfg.Gate.Prepare(ctx, mosquitto.Lists{Devices: active, CAs: c.authorities.Bundle(), CRLs: crls})
}

// checkIssuers keeps a registrar that was given another issuer from shutting out
// the devices whose certificates it does not know.
func (c *change) checkIssuers(ctx context.Context) error {
	here := make([]string, len(c.authorities.Issuing))
	for i, issuer := range c.authorities.Issuing {
		here[i] = identity.KeyID(issuer)
	}
	var issuer string
	var devices int
	err := c.tx.QueryRow(ctx, `
SELECT issuer, count(*) FROM device d JOIN certificate c USING (issuer, serial)
WHERE status = 'active' AND c.revoked_at IS NULL AND not_after > $1 AND issuer <> ALL($2) GROUP BY issuer LIMIT 1`,
		c.now, here).Scan(&issuer, &devices)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the registry: %w", err)
	}
	return fmt.Errorf("%d devices have certificates of an issuing CA (key %s) that is not at hand here and would be shut out: name the issuer that has it", devices, issuer)
}

// revocationLists answers a list of each issuing CA, the one in place as long as it
// says what the registry says and is young.
func (c *change) revocationLists(ctx context.Context) ([]byte, error) {
	text, err := c.cfg.Gate.CRLs()
	if err != nil {
		return nil, fmt.Errorf("reading the revocation lists in place: %w", err)
	}
	inPlace, err := identity.ParseLists(text)
	if err != nil {
		c.cfg.Log.Warn("the revocation lists in place are spoilt, making new ones", "error", err)
	}
	var all []byte
	for _, issuer := range c.authorities.Issuing {
		entries, err := c.revoked(ctx, issuer)
		if err != nil {
			return nil, err
		}
		der := current(inPlace, issuer, entries, c.now)
		if der == nil {
			if der, err = c.signList(ctx, issuer, entries); err != nil {
				return nil, err
			}
		}
		all = append(all, identity.EncodeList(der)...)
	}
	return all, nil
}

// revoked reads what is to be on an issuing CA's list. A certificate that has run
// out needs no revocation.
func (c *change) revoked(ctx context.Context, issuer *x509.Certificate) ([]x509.RevocationListEntry, error) {
	rows, err := c.tx.Query(ctx, `
SELECT serial, revoked_at, reason FROM certificate
WHERE issuer = $1 AND revoked_at IS NOT NULL AND not_after > $2 ORDER BY serial`, identity.KeyID(issuer), c.now)
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e x509.RevocationListEntry, err error) {
		var serial string
		if err := row.Scan(&serial, &e.RevocationTime, &e.ReasonCode); err != nil {
			return e, err
		}
		e.RevocationTime = e.RevocationTime.UTC()
		e.SerialNumber, err = parseSerial(serial)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	return entries, nil
}

// current finds the list in place of an issuing CA, nil if it is to be made anew.
func current(inPlace []*x509.RevocationList, issuer *x509.Certificate, entries []x509.RevocationListEntry, now time.Time) []byte {
	for _, list := range inPlace {
		if list.CheckSignatureFrom(issuer) != nil {
			continue
		}
		same := slices.EqualFunc(list.RevokedCertificateEntries, entries, func(a, b x509.RevocationListEntry) bool {
			return a.SerialNumber.Cmp(b.SerialNumber) == 0
		})
		third := list.NextUpdate.Sub(list.ThisUpdate) / 3
		if same && !now.Before(list.ThisUpdate) && now.Before(list.ThisUpdate.Add(third)) {
			return list.Raw
		}
	}
	return nil
}

func (c *change) signList(ctx context.Context, issuer *x509.Certificate, entries []x509.RevocationListEntry) ([]byte, error) {
	var number int64
	if err := c.tx.QueryRow(ctx, "SELECT nextval('revocation_list')").Scan(&number); err != nil {
		return nil, fmt.Errorf("numbering a revocation list: %w", err)
	}
	this := c.now.Truncate(time.Second)
	return c.cfg.Issuer.SignList(ctx, issuer, &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: this, NextUpdate: this.Add(listLife), RevokedCertificateEntries: entries,
	})
}

// trusted are the CAs that a device's bundle has.
func (c *change) trusted() ([]byte, error) {
	own := c.authorities.Bundle()
	if c.cfg.ServerCAs == "" {
		return own, nil
	}
	servers, err := os.ReadFile(c.cfg.ServerCAs)
	if err != nil {
		return nil, fmt.Errorf("reading the servers' CAs: %w", err)
	}
	if slices.Equal(servers, own) {
		return own, nil
	}
	return append(servers, own...), nil
}

func serialOf(certificate *x509.Certificate) string { return certificate.SerialNumber.Text(16) }

func parseSerial(text string) (*big.Int, error) {
	serial, ok := new(big.Int).SetString(text, 16)
	if !ok {
		return nil, fmt.Errorf("%q is no serial number", text)
	}
	return serial, nil
}

func fingerprintOf(sum [32]byte) string { return hex.EncodeToString(sum[:]) }
