package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/operate/progress"
)

// auditPause is the time between two audits while something is pending.
const auditPause = 500 * time.Millisecond

// AuditSettled repeats Audit while something is pending, for at most wait. If acknowledged
// is set it is the file of the acknowledged digests. A bar shows the progress on a terminal.
func AuditSettled(ctx context.Context, js jetstream.JetStream, db *pgx.Conn, options Options, acknowledged string, wait time.Duration) (*Report, error) {
	deadline := time.Now().Add(wait)
	for {
		report, err := auditFile(ctx, js, db, options, acknowledged)
		if err != nil || report.Total.Pending == 0 && report.Acknowledged.NeverReceived+report.Acknowledged.Elsewhere == 0 || time.Now().After(deadline) {
			return report, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(auditPause):
		}
	}
}

func auditFile(ctx context.Context, js jetstream.JetStream, db *pgx.Conn, options Options, acknowledged string) (*Report, error) {
	if acknowledged != "" {
		file, err := os.Open(filepath.Clean(acknowledged))
		if err != nil {
			return nil, fmt.Errorf("reading the acknowledged digests: %w", err)
		}
		defer func() { _ = file.Close() }()
		options.Acknowledged = file
	}
	bar := progress.Count("reading")
	defer bar.Finish()
	options.Progress = bar.Set
	return Audit(ctx, js, db, options)
}
