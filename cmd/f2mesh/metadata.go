package main

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
)

type metadataCommand struct {
	InstallTrigger metadataTriggerCommand `cmd:"" help:"Have PostgreSQL announce metadata changes, so that the decoder uses them immediately."`
}

type metadataTriggerCommand struct {
	DSN    string `arg:"" help:"Metadata database, with a role that may create triggers. The password comes from PGPASSFILE or PGPASSWORD." env:"METADATA_ADMIN_DSN"`
	Schema string `help:"Schema of the metadata tables." env:"METADATA_SCHEMA" default:"public"`
	Apply  bool   `help:"Run the SQL. Without it, the SQL is only shown."`
}

// Run installs the trigger, or shows what it would do.
func (c *metadataTriggerCommand) Run(ctx context.Context) error {
	if !c.Apply {
		fmt.Fprintln(os.Stderr, "dry run, this is what --apply would execute:")
		_, err := fmt.Print(fleet.TriggerSQL(c.Schema))
		return err
	}
	conn, err := pgx.Connect(ctx, c.DSN)
	if err != nil {
		return fmt.Errorf("connecting to the metadata database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fleet.InstallTrigger(ctx, conn, c.Schema)
}
