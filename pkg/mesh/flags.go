package mesh

import (
	"errors"
	"log/slog"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

// VaultFlags are where a service's secrets are from, besides files and variables.
type VaultFlags struct {
	vault.Config
	VaultOnly []string `help:"Secrets that may come from Vault only, by name." env:"F2MESH_VAULT_ONLY"`
}

// SecretFlags are how a service comes by its secrets and follows their changes.
type SecretFlags struct {
	VaultFlags
	SecretPoll time.Duration `help:"How often secrets are read again (plus or minus 20 %)." env:"F2MESH_SECRET_POLL" default:"15s"`
}

// Store is a service's own store. The caller runs it, and then calls done.
func (f *SecretFlags) Store(service string, files secret.Files, log *slog.Logger) (store *secret.Store, done func(), err error) {
	if f.SecretPoll < 0 {
		return nil, nil, errors.New("secret-poll must not be negative")
	}
	log = log.With("service", service)
	chain, err := f.Chain(service, files, log)
	if err != nil {
		return nil, nil, err
	}
	store = secret.NewStore(chain, log)
	store.Poll = f.SecretPoll
	return store, func() {
		for _, link := range chain {
			if client, ok := link.(interface{ Close() }); ok {
				client.Close()
			}
		}
	}, nil
}

// Chain is where a service's secrets are sought: Vault, if it has an address, then
// files, then the environment (design 8).
func (f *VaultFlags) Chain(service string, files secret.Files, log *slog.Logger) (secret.Chain, error) {
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

// IssuerFlags say who signs devices' certificates.
type IssuerFlags struct {
	Issuer string `help:"What signs device certificates: files (the mesh's own CA) or vault (the PKI engine). Default: as the mesh was started, or files." env:"F2MESH_ISSUER" default:"" enum:",files,vault" json:"name,omitempty"`
	Mount  string `help:"Path of Vault's PKI engine." env:"F2MESH_PKI_MOUNT" default:"pki" name:"pki-mount" json:"mount,omitempty"`
}
