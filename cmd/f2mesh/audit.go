package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/ledger"
)

type auditCommand struct {
	Since        time.Duration `help:"Maximum age. 0: everything in the streams." default:"0"`
	Until        time.Duration `help:"Ignore messages younger than this." default:"0"`
	MAC          string        `help:"Only this controller."`
	Acknowledged string        `help:"File with one digest per acknowledged message, as simulate --report writes it. Each must have been received as often as it is listed." type:"existingfile"`
	Wait         time.Duration `help:"Maximum time to wait until no message is pending." default:"0"`
	JSON         bool          `help:"Print JSON."`
}

// errUnbalanced makes the exit status say what the report says.
var errUnbalanced = errors.New("the ledger does not balance: the first lines of the report say where")

// Run prints the report; its exit status is 1 if something is missing.
func (c *auditCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	options, err := c.options()
	if err != nil {
		return err
	}
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	r := m.Description
	db, err := mesh.ConnectPostgres(ctx, r.DSN("", mesh.DatabaseTelemetry), m.Secrets, mesh.SecretReader)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	report, err := c.audit(ctx, m.JetStream, db, options)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(report)
	} else {
		_, err = report.WriteTo(os.Stdout)
	}
	if err == nil && !report.Balanced() {
		err = errUnbalanced
	}
	return err
}

func (c *auditCommand) options() (o ledger.Options, err error) {
	now := time.Now()
	if c.Since > 0 {
		o.Since = now.Add(-c.Since)
	}
	if c.Until > 0 {
		o.Until = now.Add(-c.Until)
	}
	if c.MAC != "" {
		if o.MAC, err = topic.ParseMAC(c.MAC); err != nil {
			return o, fmt.Errorf("%q is not a MAC address: 12 hex digits, bare or with - or : between bytes", c.MAC)
		}
	}
	return o, nil
}

// audit repeats the audit while something is pending and there is time to wait.
func (c *auditCommand) audit(ctx context.Context, js jetstream.JetStream, db *pgx.Conn, options ledger.Options) (*ledger.Report, error) {
	deadline := time.Now().Add(c.Wait)
	for {
		report, err := c.once(ctx, js, db, options)
		if err != nil || report.Total.Pending == 0 && report.Acknowledged.NeverReceived+report.Acknowledged.Elsewhere == 0 || time.Now().After(deadline) {
			return report, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (c *auditCommand) once(ctx context.Context, js jetstream.JetStream, db *pgx.Conn, options ledger.Options) (*ledger.Report, error) {
	if c.Acknowledged != "" {
		file, err := os.Open(filepath.Clean(c.Acknowledged))
		if err != nil {
			return nil, fmt.Errorf("reading the acknowledged digests: %w", err)
		}
		defer func() { _ = file.Close() }()
		options.Acknowledged = file
	}
	return ledger.Audit(ctx, js, db, withProgress(options))
}

// withProgress shows a bar where people look at it.
func withProgress(o ledger.Options) ledger.Options {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return o
	}
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("reading"),
		progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	o.Progress = func(done, total uint64) {
		bar.ChangeMax64(int64(total)) //nolint:gosec // a message count
		_ = bar.Set64(int64(done))    //nolint:gosec // a message count
	}
	return o
}
