package main

import (
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/vault"
)

// vaultFlags are where a service's secrets are from, besides files and variables.
type vaultFlags struct {
	vault.Config
	VaultOnly []string `help:"Secrets that are taken from Vault alone, by name." env:"F2MESH_VAULT_ONLY"`
}

// chain is where a service's secrets are sought: Vault, if it has an address, then
// files, then the environment (design 8).
func (f *vaultFlags) chain(service string, files secret.Files, log *slog.Logger) (secret.Chain, error) {
	chain := secret.Chain{secret.VaultOnly(f.VaultOnly), files, secret.Environment("F2MESH_")}
	if f.Addr == "" {
		return chain, nil
	}
	client, err := vault.Open(f.Config, service, log)
	if err != nil {
		return nil, err
	}
	return append(secret.Chain{client}, chain...), nil
}
