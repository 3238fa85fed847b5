package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/services/registrar"
)

type demoCommand struct {
	containerRegistry
	Controllers int `help:"Number of demo controllers." env:"F2MESH_CONTROLLERS" default:"5"`
}

// Run registers the demo fleet and puts it into the metadata.
func (c *demoCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	controllers := fleet.Demo(c.Controllers)
	err := c.within(ctx, g.state(), new(mesh.IssuerFlags), log, func(r *registrar.Core) error {
		if err := registrar.Migrate(ctx, r.Pool.Pool); err != nil {
			return err
		}
		return r.Admit(ctx, registrar.Origin{Actor: "demo"}, controllers)
	})
	if err != nil {
		return err
	}
	conn, err := mesh.Dial(ctx, c.Registry, g.state().CAFile(), mesh.DatabaseMetadata, postgres.Superuser, c.secrets(), mesh.SecretSuperuser)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := fleet.Seed(ctx, conn, mesh.MetadataSchema, controllers); err != nil {
		return err
	}
	fmt.Println(len(controllers), "controllers are registered")
	return nil
}
