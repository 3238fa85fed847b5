package est

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Metadata reads claiming codes from the fleet's metadata (design 4).
type Metadata struct {
	pool  *pgxpool.Pool
	query string
}

// NewMetadata returns the codes of the schema's table "Device".
func NewMetadata(pool *pgxpool.Pool, schema string) *Metadata {
	return &Metadata{pool: pool, query: fmt.Sprintf(`
SELECT coalesce("ClaimingCode", ''), coalesce("SerialNumber", '') FROM %s
WHERE LOWER("MacAddress") = ANY($1) ORDER BY "DeviceId" LIMIT 1`, pgx.Identifier{schema, "Device"}.Sanitize())}
}

// Lookup finds the MAC in any usual spelling.
func (m *Metadata) Lookup(ctx context.Context, mac topic.MAC) (code, serialNumber string, err error) {
	spellings := []string{string(mac), mac.Dashed(), strings.ReplaceAll(mac.Dashed(), "-", ":")}
	err = m.pool.QueryRow(ctx, m.query, spellings).Scan(&code, &serialNumber)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("reading device metadata: %w", err)
	}
	return code, serialNumber, nil
}
