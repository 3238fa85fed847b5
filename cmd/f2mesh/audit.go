package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/ledger"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
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
	report, err := ledger.AuditSettled(ctx, m.JetStream, db, options, c.Acknowledged, c.Wait)
	if err != nil {
		return err
	}
	if c.JSON {
		err = plain.PrintJSON(report)
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
	o.MAC, err = parseMAC(c.MAC)
	return o, err
}
