package main

import (
	"context"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// registryFlags are those of the commands that change who is in the fleet.
type registryFlags struct {
	mesh.IssuerFlags
	containerRegistry
}

// with runs do on the registry of the mesh that runs on the state directory.
func (f *registryFlags) with(ctx context.Context, g *globals, log *slog.Logger, do func(*registrar.Core) error) error {
	st := g.state()
	if f.Registry != "" {
		return f.within(ctx, st, &f.IssuerFlags, log, do)
	}
	r, err := st.Load()
	if err != nil {
		return err
	}
	secrets, err := st.Secrets(log)
	if err != nil {
		return err
	}
	defer secrets.Close()
	issuer, err := f.issuer(st, r, log)
	if err != nil {
		return err
	}
	registry, err := registrar.Open(ctx, st, r.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry), issuer, secrets, log)
	if err != nil {
		return err
	}
	defer registry.Close()
	return do(registry)
}

// issuer is the one that is asked for, or that of the running mesh.
func (f *registryFlags) issuer(st mesh.State, r mesh.Description, log *slog.Logger) (identity.Issuer, error) {
	if f.Issuer == "" {
		f.IssuerFlags = r.Issuer
	}
	return f.FromEnvironment(st, log)
}

// containerRegistry lets a command work on the registry from inside a container,
// where no `up` runs: --state-dir has the same folders, the secrets are files.
type containerRegistry struct {
	Registry   string `help:"In a container: PostgreSQL server of the registry (host:port)." env:"F2MESH_REGISTRY" placeholder:"HOST:PORT" group:"Containers (compose.yaml)"`
	SecretsDir string `help:"In a container: directory of secret files." env:"F2MESH_SECRETS_DIR" default:"/run/secrets" type:"path" group:"Containers (compose.yaml)"`
}

// secrets are sought as a service's are, but for Vault.
func (c *containerRegistry) secrets() secret.Chain {
	return secret.Chain{secret.Files(c.SecretsDir), secret.Environment("F2MESH_")}
}

// within runs do on the registry, with the issuer that is asked for.
func (c *containerRegistry) within(ctx context.Context, st mesh.State, by *mesh.IssuerFlags, log *slog.Logger, do func(*registrar.Core) error) error {
	issuer, err := by.FromEnvironment(st, log)
	if err != nil {
		return err
	}
	r, err := registrar.Open(ctx, st, mesh.DSN(c.Registry, st.CAFile(), mesh.RoleRegistrar, mesh.DatabaseRegistry), issuer, c.secrets(), log)
	if err != nil {
		return err
	}
	defer r.Close()
	return do(r)
}
