package mesh

import (
	"errors"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

// IssuerVault is the value of --issuer for Vault's PKI engine.
const IssuerVault = "vault"

// Open answers the issuer. With Vault the files' own goes on for the devices that
// have their certificates from it. A service logs in as the registrar; a person may
// have a token of their own.
func (f *IssuerFlags) Open(own *identity.Authority, cfg vault.Config, token secret.Value, log *slog.Logger) (identity.Issuer, error) {
	if f.Issuer != IssuerVault {
		return own, nil
	}
	if cfg.Addr == "" {
		return nil, errors.New("--issuer vault needs a Vault: set VAULT_ADDR, and prepare its PKI engine with `f2mesh vault bootstrap --pki`")
	}
	var client *vault.Client
	var err error
	if token.Reveal() != "" {
		client, err = vault.OpenToken(cfg, token, log)
	} else {
		client, err = vault.Open(cfg, "registrar", log)
	}
	if err != nil {
		return nil, err
	}
	return identity.Several{vault.NewIssuer(client, f.Mount), own}, nil
}

// Arguments are the flags again; the broker must know the CA that signed.
func (f *IssuerFlags) Arguments() []string {
	if f.Issuer == "" {
		return nil
	}
	return []string{"--issuer=" + f.Issuer, "--pki-mount=" + f.Mount}
}

// FromEnvironment opens it for a command, which has no flags of its own for Vault.
func (f *IssuerFlags) FromEnvironment(st State, log *slog.Logger) (identity.Issuer, error) {
	own, err := identity.OpenAuthority(st.Path("pki"))
	if err != nil {
		return nil, err
	}
	at, err := st.VaultFlags()
	if err != nil {
		return nil, err
	}
	return f.Open(own, at.Config, personal(), log)
}

// personal is the token that a person has set.
func personal() secret.Value { return secret.NewValue(os.Getenv("VAULT_TOKEN"), "environment", "") }
