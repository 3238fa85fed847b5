package est

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Registry keeps the claims in the registry's tables claim and guess.
type Registry struct {
	pool   *pgxpool.Pool
	limits Limits
}

// NewRegistry returns the claims in the registry's database, with so many guesses for
// each device.
func NewRegistry(pool *pgxpool.Pool, limits Limits) *Registry {
	return &Registry{pool: pool, limits: limits}
}

// Take reserves a code. A reservation whose process died is free again after two
// minutes, longer than an enrolment may take: if it had registered the device, the
// registry knows.
func (c *Registry) Take(ctx context.Context, mac topic.MAC, code string) (bool, error) {
	var taken bool
	err := c.pool.QueryRow(ctx, `
INSERT INTO claim (mac, digest) VALUES ($1, $2)
ON CONFLICT (mac, digest) DO UPDATE SET since = now() WHERE NOT claim.used AND claim.since < now() - interval '2 minutes'
RETURNING true`, string(mac), digest(mac, code)).Scan(&taken)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("taking a claiming code: %w", err)
	}
	return taken, nil
}

// Settle ends the reservation.
func (c *Registry) Settle(ctx context.Context, mac topic.MAC, code string, used bool) error {
	statement := `DELETE FROM claim WHERE mac = $1 AND digest = $2 AND NOT used`
	if used {
		statement = `UPDATE claim SET used = true WHERE mac = $1 AND digest = $2`
	}
	if _, err := c.pool.Exec(ctx, statement, string(mac), digest(mac, code)); err != nil {
		return fmt.Errorf("settling a claiming code: %w", err)
	}
	return nil
}

// digest keeps the code itself out of the registry.
func digest(mac topic.MAC, code string) []byte {
	sum := sha256.Sum256([]byte(string(mac) + "\x00" + code))
	return sum[:]
}
