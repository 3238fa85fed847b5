package main

import (
	"context"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/services/registrar"
)

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
