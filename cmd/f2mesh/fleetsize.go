package main

import (
	"context"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// enlarge makes the demo fleet of a running mesh at least as large as
// controllers: registry and metadata.
func enlarge(ctx context.Context, st mesh.State, r mesh.Description, controllers []fleet.Controller, log *slog.Logger) error {
	secrets, err := st.Secrets(log)
	if err != nil {
		return err
	}
	defer secrets.Close()
	issuer, err := new(registryFlags).issuer(st, r, log)
	if err != nil {
		return err
	}
	registry, err := registrar.Open(ctx, st, r.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry), issuer, secrets, log)
	if err != nil {
		return err
	}
	defer registry.Close()
	if err := registry.Admit(ctx, registrar.Origin{Actor: "operator"}, controllers); err != nil {
		return err
	}
	conn, err := r.Superuser(ctx, secrets, mesh.DatabaseMetadata)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fleet.Seed(ctx, conn, mesh.MetadataSchema, controllers)
}
