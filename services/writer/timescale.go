package writer

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func timescaleAvailable(ctx context.Context, pool *pgxpool.Pool) (available bool, err error) {
	err = pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')`).Scan(&available)
	return available, err
}

// hypertables are the tables, and how each is compressed.
var hypertables = []struct{ table, segmentBy, orderBy string }{
	{"measurement", "device_id, datapoint_id", "time DESC"},
	{"device_event", "mac", "time DESC, event_id"}, // both together contain the key
	{"measurement_history", "", ""},                // few rows, not compressed
}

// prepareTimescale makes the tables hypertables that can be compressed, and creates the
// aggregates as continuous aggregates. Every step is idempotent.
func prepareTimescale(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS timescaledb`); err != nil {
		return err
	}
	for _, t := range hypertables {
		statements := []string{
			fmt.Sprintf(`SELECT create_hypertable('%s', by_range('time', INTERVAL '1 day'), if_not_exists => TRUE, migrate_data => TRUE)`, t.table),
		}
		if t.segmentBy != "" {
			statements = append(statements,
				fmt.Sprintf(`ALTER TABLE %s SET (timescaledb.compress, timescaledb.compress_segmentby = '%s', timescaledb.compress_orderby = '%s')`, t.table, t.segmentBy, t.orderBy))
		}
		if err := each(ctx, conn, statements); err != nil {
			return fmt.Errorf("making %s a hypertable: %w", t.table, err)
		}
	}
	for _, a := range aggregates {
		if err := prepareAggregate(ctx, conn, a.name, a.bucket); err != nil {
			return err
		}
	}
	return nil
}

// prepareAggregate replaces the ordinary view, if there is one, by a continuous aggregate.
func prepareAggregate(ctx context.Context, conn *pgx.Conn, name, bucket string) error {
	var exists bool
	err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM timescaledb_information.continuous_aggregates WHERE view_name = $1)`, name).Scan(&exists)
	if err != nil || exists {
		return err
	}
	err = each(ctx, conn, []string{
		fmt.Sprintf(`DROP VIEW IF EXISTS %s`, name),
		fmt.Sprintf(`CREATE MATERIALIZED VIEW %s WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS %s WITH NO DATA`,
			name, aggregateQuery(fmt.Sprintf("time_bucket(INTERVAL '%s', time)", bucket))),
	})
	if err != nil {
		return fmt.Errorf("making the continuous aggregate %s: %w", name, err)
	}
	return nil
}

// prepareHistory is prepareTimescale, and sets the policies for compression, retention and
// refresh that the configuration asks for.
func (w *Writer) prepareHistory(ctx context.Context, conn *pgx.Conn) error {
	if err := prepareTimescale(ctx, conn); err != nil {
		return err
	}
	for _, t := range hypertables {
		if err := each(ctx, conn, w.tablePolicies(t.table, t.segmentBy != "")); err != nil {
			return fmt.Errorf("setting the policies of %s: %w", t.table, err)
		}
	}
	for _, a := range aggregates {
		if err := each(ctx, conn, w.aggregatePolicies(a.name, a.bucket)); err != nil {
			return fmt.Errorf("setting the policies of %s: %w", a.name, err)
		}
	}
	w.log.Info("TimescaleDB prepared", "compress_after", w.cfg.CompressAfter.String(), "retention", w.cfg.Retention.String())
	return nil
}

func (w *Writer) tablePolicies(table string, compress bool) (statements []string) {
	if compress {
		statements = append(statements,
			fmt.Sprintf(`SELECT remove_compression_policy('%s', if_exists => TRUE)`, table),
			fmt.Sprintf(`SELECT add_compression_policy('%s', %s)`, table, interval(w.cfg.CompressAfter)))
	}
	statements = append(statements, fmt.Sprintf(`SELECT remove_retention_policy('%s', if_exists => TRUE)`, table))
	if w.cfg.Retention > 0 {
		statements = append(statements, fmt.Sprintf(`SELECT add_retention_policy('%s', %s)`, table, interval(w.cfg.Retention)))
	}
	return statements
}

// aggregatePolicies refresh every hour the buckets that got new rows, also late ones, as long
// as the retention keeps the other rows of the bucket.
func (w *Writer) aggregatePolicies(name, bucket string) []string {
	return []string{
		fmt.Sprintf(`SELECT remove_continuous_aggregate_policy('%s', if_exists => TRUE)`, name),
		fmt.Sprintf(`SELECT add_continuous_aggregate_policy('%s', start_offset => %s, end_offset => INTERVAL '%s', schedule_interval => INTERVAL '1 hour')`, name, w.refreshFrom(), bucket),
	}
}

func each(ctx context.Context, conn *pgx.Conn, statements []string) error {
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// refreshFrom returns the age of the oldest rows that the aggregates are refreshed from. It is
// two chunks of a day less than the retention: a refresh over dropped rows would delete their
// aggregates.
func (w *Writer) refreshFrom() string {
	const (
		day   = 24 * time.Hour
		least = 4 * day // a daily aggregate needs more than two days
	)
	if w.cfg.Retention == 0 {
		return "NULL" // all rows
	}
	return interval(max(least, w.cfg.Retention-2*day))
}

func interval(d time.Duration) string {
	return fmt.Sprintf("INTERVAL '%d seconds'", int64(d.Seconds()))
}
