package main

import (
	"context"
	"fmt"

	"github.com/f2mesh/f2mesh/pkg/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/postgres"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

type demoCommand struct {
	Controllers int    `help:"Controllers of the demo fleet." env:"F2MESH_CONTROLLERS" default:"5"`
	Metadata    string `help:"PostgreSQL server of the metadata, host:port." default:"postgres:5432"`
	CAFile      string `help:"Certificates that the server's must chain to (PEM)." env:"F2MESH_CA" name:"ca" type:"path"`
	SecretsDir  string `help:"Directory of secret files." env:"F2MESH_SECRETS_DIR" default:"/run/secrets" type:"path"`
}

// Run makes the demo fleet's certificates, lets the broker know them, and puts the
// fleet into the metadata.
func (c *demoCommand) Run(ctx context.Context, g *globals) error {
	st, controllers := state{dir: g.StateDir}, fleet.Demo(c.Controllers)
	authority, err := identity.OpenAuthority(st.path("pki"))
	if err != nil {
		return err
	}
	if err := issue(authority, st, controllers); err != nil {
		return err
	}
	if err := allowRegistered(st); err != nil {
		return err
	}
	if err := mosquitto.Reload(st.path("mosquitto")); err != nil {
		return fmt.Errorf("letting controllers in: %w", err)
	}
	conn, err := dial(ctx, c.Metadata, c.CAFile, databaseMetadata, postgres.Superuser, secret.Files(c.SecretsDir), secretSuperuser)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := fleet.Seed(ctx, conn, metadataSchema, controllers); err != nil {
		return err
	}
	fmt.Printf("%d controllers are registered\n", len(controllers))
	return nil
}
