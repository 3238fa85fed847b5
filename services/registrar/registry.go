package registrar

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the registry's tables to this version's form. Several may call it
// at once.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error { return MigrateTo(ctx, pool, 0) }

// MigrateTo makes the tables of the migration of that number, 0 for the newest.
func MigrateTo(ctx context.Context, pool *pgxpool.Pool, number int64) error {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("migrating the registry: %w", err)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrating the registry: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("migrating the registry: %w", err)
	}
	if _, err := database.MigrateTo(ctx, provider, number); err != nil {
		return fmt.Errorf("migrating the registry: %w", err)
	}
	return nil
}

const selectDevice = `
SELECT d.mac, d.serial_number, d.status, d.serial, c.fingerprint, d.issuer, c.not_before, c.not_after,
       d.own_key, d.registered_at, d.renewed_at, d.revoked_at
FROM device d JOIN certificate c USING (issuer, serial) `

// asker is a pool, a connection or a transaction.
type asker interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func devices(ctx context.Context, q asker, where string, args ...any) ([]Device, error) {
	rows, err := q.Query(ctx, selectDevice+where, args...)
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanDevice)
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	return all, nil
}

func scanDevice(row pgx.CollectableRow) (d Device, err error) {
	err = row.Scan(&d.MAC, &d.SerialNumber, &d.Status, &d.Certificate, &d.Fingerprint, &d.Issuer, &d.NotBefore, &d.NotAfter,
		&d.OwnKey, &d.RegisteredAt, &d.RenewedAt, &d.RevokedAt)
	return d, err
}

// known reads the devices among macs.
func known(ctx context.Context, q asker, macs []topic.MAC) (map[topic.MAC]Device, error) {
	all, err := devices(ctx, q, "WHERE d.mac = ANY($1)", macs)
	if err != nil {
		return nil, err
	}
	byMAC := make(map[topic.MAC]Device, len(all))
	for _, d := range all {
		byMAC[d.MAC] = d
	}
	return byMAC, nil
}

func macs(ctx context.Context, q asker, sql string, args ...any) ([]topic.MAC, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[topic.MAC])
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	return all, nil
}

// List answers all devices, in the order of their MACs.
func (r *Registrar) List(ctx context.Context) ([]Device, error) {
	return devices(ctx, r.cfg.Pool, "ORDER BY d.mac")
}

// Show answers one device, or ErrUnknown.
func (r *Registrar) Show(ctx context.Context, mac topic.MAC) (Device, error) {
	all, err := devices(ctx, r.cfg.Pool, "WHERE d.mac = $1", mac)
	if err != nil {
		return Device{}, err
	}
	if len(all) == 0 {
		return Device{}, fmt.Errorf("%s: %w", mac.Dashed(), ErrUnknown)
	}
	return all[0], nil
}

// Active answers which of the devices may connect.
func (r *Registrar) Active(ctx context.Context, of []topic.MAC) ([]topic.MAC, error) {
	return macs(ctx, r.cfg.Pool, "SELECT mac FROM device WHERE status = 'active' AND mac = ANY($1) ORDER BY mac", of)
}

// Expiring lists the active devices whose certificate ends before a time.
func (r *Registrar) Expiring(ctx context.Context, before time.Time) ([]Device, error) {
	return devices(ctx, r.cfg.Pool, "WHERE d.status = 'active' AND c.not_after < $1 ORDER BY c.not_after", before)
}

// standing is how one certificate stands in the registry.
type standing struct {
	status  DeviceStatus
	revoked bool
}

// rowAsker is a pool or a transaction.
type rowAsker interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readStanding(ctx context.Context, q rowAsker, mac topic.MAC, issuer, serial string) (s standing, err error) {
	err = q.QueryRow(ctx, `
SELECT d.status, c.revoked_at IS NOT NULL
FROM device d JOIN certificate c USING (mac) WHERE d.mac = $1 AND c.issuer = $2 AND c.serial = $3`,
		mac, issuer, serial).Scan(&s.status, &s.revoked)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, ErrUnknown
	}
	return s, err
}
