package writer

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/f2mesh/f2mesh/pkg/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// aggregates are the views over measurement and their buckets. With TimescaleDB they are
// continuous aggregates with the same names and columns.
var aggregates = []struct{ name, bucket string }{
	{"measurement_hourly", "1 hour"},
	{"measurement_daily", "1 day"},
}

// Migrate migrates the tables to the migration with a number, 0 for the newest, and makes
// them hypertables if TimescaleDB is available. pool must connect as the tables' owner and
// without a pooler, because of session locks. Migrate sets no policies: the writer does when
// it starts.
func Migrate(ctx context.Context, pool *pgxpool.Pool, number int64, log *slog.Logger) error {
	if err := migrate(ctx, pool, number, log); err != nil {
		return fmt.Errorf("migrating tables: %w", err)
	}
	timescale, err := timescaleAvailable(ctx, pool)
	if err != nil {
		return fmt.Errorf("looking for TimescaleDB: %w", err)
	}
	prepare := preparePlain
	if timescale {
		prepare = prepareTimescale
	}
	if err := alone(ctx, pool, prepare); err != nil {
		return fmt.Errorf("preparing tables: %w", err)
	}
	return nil
}

// prepareTables migrates the tables to this version. It waits for PostgreSQL until ctx ends.
// pool must not use a pooler, because of session locks.
func (w *Writer) prepareTables(ctx context.Context, pool *pgxpool.Pool) error {
	if err := w.retry(ctx, func(ctx context.Context) error { return migrate(ctx, pool, 0, w.log) }); err != nil {
		return fmt.Errorf("migrating tables: %w", err)
	}
	timescale := false
	if w.cfg.Timescale {
		err := w.retry(ctx, func(ctx context.Context) (err error) {
			timescale, err = timescaleAvailable(ctx, pool)
			return err
		})
		if err != nil {
			return fmt.Errorf("looking for TimescaleDB: %w", err)
		}
	}
	prepare := preparePlain
	if timescale {
		prepare = w.prepareHistory
	} else {
		w.log.Warn("TimescaleDB is not available: using plain PostgreSQL tables without hypertables, compression, continuous aggregates and retention; rows are kept until they are deleted by hand")
	}
	if err := w.retry(ctx, func(ctx context.Context) error { return alone(ctx, pool, prepare) }); err != nil {
		return fmt.Errorf("preparing tables: %w", err)
	}
	return nil
}

// migrate holds an advisory lock, so that of several writers only one migrates at a time.
func migrate(ctx context.Context, pool *pgxpool.Pool, number int64, log *slog.Logger) error {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300)) // tries each second for five minutes
	if err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	results, err := database.MigrateTo(ctx, provider, number)
	for _, r := range results {
		log.Info("migrated tables", "migration", r.Source.Path, "took", r.Duration.Round(time.Millisecond).String())
	}
	return err
}

// alone runs prepare under an advisory lock. Without it, a writer that creates a view at the
// same time as another gets SQLSTATE 23505 and stops.
func alone(ctx context.Context, pool *pgxpool.Pool, prepare func(context.Context, *pgx.Conn) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	const key = 0x66326d657368 // any constant
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, key); err != nil {
		return err
	}
	defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, key) }()
	return prepare(ctx, conn.Conn())
}

// preparePlain creates the aggregates as ordinary views.
func preparePlain(ctx context.Context, conn *pgx.Conn) error {
	for _, a := range aggregates {
		_, err := conn.Exec(ctx, fmt.Sprintf(`CREATE OR REPLACE VIEW %s AS %s`, a.name,
			aggregateQuery(fmt.Sprintf("date_bin('%s', time, 'epoch')", a.bucket))))
		if err != nil {
			return err
		}
	}
	return nil
}

func aggregateQuery(bucket string) string {
	return fmt.Sprintf(`
SELECT %s AS bucket, device_id, datapoint_id,
       avg(value) AS average, min(value) AS minimum, max(value) AS maximum, count(*) AS readings
FROM measurement WHERE value IS NOT NULL GROUP BY 1, 2, 3`, bucket)
}
