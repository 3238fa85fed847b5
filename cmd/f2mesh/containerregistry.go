package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
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
func (c *containerRegistry) within(ctx context.Context, st mesh.State, by *mesh.IssuerFlags, log *slog.Logger, do func(*registry) error) error {
	host, port, err := net.SplitHostPort(c.Registry)
	if err != nil {
		return fmt.Errorf("--registry: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("--registry: %w", err)
	}
	issuer, err := by.FromEnvironment(st, log)
	if err != nil {
		return err
	}
	r, err := openRegistry(ctx, st, host, number, issuer, c.secrets(), log)
	if err != nil {
		return err
	}
	defer r.close()
	return do(r)
}
