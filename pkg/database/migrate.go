package database

import (
	"cmp"
	"context"
	"fmt"

	"github.com/pressly/goose/v3"
)

// MigrateTo brings tables to the form that they have after the migration of that number,
// 0 for the newest of the provider's. Tables of a newer program are an error. The results
// are of the migrations that were run.
func MigrateTo(ctx context.Context, provider *goose.Provider, number int64) ([]*goose.MigrationResult, error) {
	sources := provider.ListSources()
	newest := sources[len(sources)-1].Version
	if number > newest {
		return nil, fmt.Errorf("the tables have migration %d, this program only knows %d: use a newer version", number, newest)
	}
	return provider.UpTo(ctx, cmp.Or(number, newest))
}
