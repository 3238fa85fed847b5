package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

type vaultCommands struct {
	Bootstrap vaultBootstrapCommand `cmd:"" help:"Prepare a Vault for the mesh. May be run again. Reads an administrator's token from VAULT_TOKEN."`
}

type vaultBootstrapCommand struct {
	vault.Config
	vault.Roles
	vault.AuditDevice
	SecretsDir string   `help:"Directory of secret files to import where Vault has none. Default: the mesh's own."`
	Reissue    []string `help:"Services whose SecretIDs and tokens are revoked and replaced. all: every service." name:"reissue" placeholder:"SERVICE"`
	DryRun     bool     `help:"Show what would be done without doing it."`
	TokenStdin bool     `help:"Read the administrator's token from standard input instead of VAULT_TOKEN." name:"token-stdin"`
	Folders    bool     `help:"Write each login to <service>/ in --vault-auth-dir, as compose.yaml mounts them. Services without such a directory are left out." name:"folders"`

	PKI       bool   `help:"Also prepare a PKI engine that signs device certificates." name:"pki" group:"PKI engine"`
	PKIMount  string `help:"Path of the engine." name:"pki-mount" default:"pki" group:"PKI engine"`
	PKIImport string `help:"Directory with issuer.crt, issuer.key and root.crt to import. Default: Vault creates a root and an issuer." name:"pki-import" type:"existingdir" group:"PKI engine"`

	Database         bool   `help:"Also prepare a database engine that creates short-lived users for people." group:"Database engine"`
	DatabaseURL      string `help:"Database address, as seen from Vault." name:"database-url" placeholder:"postgresql://HOST:PORT/DATABASE" group:"Database engine"`
	DatabaseCA       string `help:"CA certificate of the database (PEM)." name:"database-ca" type:"existingfile" group:"Database engine"`
	DatabaseUser     string `help:"User that creates the others. Its password is the secret postgres_superuser_password." default:"postgres" group:"Database engine"`
	DatabaseReadRole string `help:"Role that is granted to them." default:"f2mesh_reader" group:"Database engine"`
}

// Run prepares the Vault and prints each step.
func (c *vaultBootstrapCommand) Run(ctx context.Context, g *globals, _ *slog.Logger) error {
	if c.Addr == "" {
		return errors.New("VAULT_ADDR is not set: name the Vault to prepare, such as https://vault.example.org:8200")
	}
	token, err := vault.AdministratorToken(c.TokenStdin)
	if err != nil {
		return err
	}
	b, err := c.bootstrap(ctx, g.state())
	if err != nil {
		return err
	}
	counts := map[vault.Change]int{}
	b.Report = func(s vault.Step) {
		counts[s.Change]++
		fmt.Printf("%-10s %s\n", s.Change, s.What)
	}
	if err := b.Run(ctx, token); err != nil {
		return err
	}
	fmt.Println(vault.Conclusion(counts, c.DryRun))
	return nil
}

func (c *vaultBootstrapCommand) bootstrap(ctx context.Context, st mesh.State) (*vault.Bootstrap, error) {
	b := &vault.Bootstrap{Config: c.Config, Roles: c.Roles, Audit: c.AuditDevice, SecretsDir: c.SecretsDir, Reissue: c.Reissue, Folders: c.Folders, DryRun: c.DryRun}
	if slices.Contains(b.Reissue, "all") {
		b.Reissue = vault.Services
	}
	for _, service := range b.Reissue {
		if !slices.Contains(vault.Services, service) {
			return nil, fmt.Errorf("--reissue %s: unknown service; known: %v", service, vault.Services)
		}
	}
	if _, err := os.Stat(st.SecretsDir()); b.SecretsDir == "" && err == nil {
		b.SecretsDir = st.SecretsDir()
	}
	if c.PKI {
		b.PKI = &vault.PKI{Mount: c.PKIMount, Import: c.PKIImport}
	}
	if !c.Database {
		return b, nil
	}
	password, err := secret.Chain{secret.Files(b.SecretsDir), secret.Environment("F2MESH_")}.Lookup(ctx, mesh.SecretSuperuser)
	if err != nil {
		return nil, err
	}
	b.Database = &vault.DatabaseEngine{URL: c.DatabaseURL, Username: c.DatabaseUser, Password: password, Reader: c.DatabaseReadRole}
	if c.DatabaseCA != "" {
		ca, err := os.ReadFile(c.DatabaseCA)
		if err != nil {
			return nil, fmt.Errorf("reading the database's CA: %w", err)
		}
		b.Database.CA = string(ca)
	}
	return b, nil
}
