package est

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Wrong codes that are alarming, until none comes for an hour: for one device, and for
// all together.
const (
	guessesOfDevice = 5
	guessesOfFleet  = 100
)

// everyDevice is the subject of the alarm about all together.
const everyDevice = "fleet"

// mostGuessed bounds the table: somebody may guess at every MAC that there is.
const mostGuessed = 100_000

// Guess charges a bucket that leaks. Its row is that of the device, whether we know
// the device or not: the answers are the same.
func (c *Registry) Guess(ctx context.Context, mac topic.MAC, known bool) (bool, error) {
	var charged bool
	err := c.pool.QueryRow(ctx, `
INSERT INTO guess AS g (mac, known, level, failures, last) VALUES ($1, $2, 1, 1, now())
ON CONFLICT (mac) DO UPDATE SET known = $2, failures = g.failures + 1, last = now(),
    level = greatest(0, g.level - $3::float8 * extract(epoch FROM now() - g.last)::float8) + 1
WHERE greatest(0, g.level - $3::float8 * extract(epoch FROM now() - g.last)::float8) + 1 <= $4
RETURNING true`, string(mac), known, c.limits.DeviceRate, float64(c.limits.DeviceBurst)).Scan(&charged)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("charging for a claiming code: %w", err)
	}
	return charged, nil
}

// Right takes one charge back.
func (c *Registry) Right(ctx context.Context, mac topic.MAC) error {
	_, err := c.pool.Exec(ctx, `
WITH none AS (DELETE FROM guess WHERE mac = $1 AND failures <= 1)
UPDATE guess SET failures = failures - 1, level = greatest(0, level - 1) WHERE mac = $1 AND failures > 1`, string(mac))
	return err
}

// Guessed answers what is alarming: by MAC, or for all devices together. It forgets
// what is older than an hour.
func (c *Registry) Guessed(ctx context.Context) (map[string]string, error) {
	if _, err := c.pool.Exec(ctx, `
DELETE FROM guess WHERE now() - last > greatest(interval '1 hour', make_interval(secs => level / $1))
    OR mac IN (SELECT mac FROM guess ORDER BY failures DESC, last DESC OFFSET $2)`, c.limits.DeviceRate, mostGuessed); err != nil {
		return nil, fmt.Errorf("forgetting wrong claiming codes: %w", err)
	}
	rows, err := c.pool.Query(ctx, `
(SELECT mac, failures FROM guess WHERE known AND failures >= $1 ORDER BY failures DESC LIMIT 500)
UNION ALL
SELECT $2, sum(failures)::bigint FROM guess HAVING sum(failures) >= $3`, guessesOfDevice, everyDevice, guessesOfFleet)
	if err != nil {
		return nil, fmt.Errorf("counting wrong claiming codes: %w", err)
	}
	found := map[string]string{}
	var subject string
	var failures int64
	_, err = pgx.ForEachRow(rows, []any{&subject, &failures}, func() error {
		found[subject] = fmt.Sprintf("%d wrong claiming codes, the last within an hour: the audit trail says from where", failures)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("counting wrong claiming codes: %w", err)
	}
	return found, nil
}
