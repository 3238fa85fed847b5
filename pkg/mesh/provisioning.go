package mesh

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// Provisioning puts on the PostgreSQL servers of a mesh what is missing: roles, databases and tables.
type Provisioning struct {
	Description
	Secrets secret.Source
	// Registry makes the registrar's tables, as their owner.
	Registry func(context.Context, *database.Pool) error
	// Keep leaves the passwords that are in force, but for the pooler's: services have newer ones in Vault.
	Keep bool
	// New is for servers that know no role but their first.
	New bool
}

// Run makes everything.
func (p *Provisioning) Run(ctx context.Context) error {
	if err := p.Roles(ctx); err != nil {
		return err
	}
	for _, s := range p.Servers() {
		for _, d := range s.Databases {
			if err := p.tables(ctx, s, d); err != nil {
				return fmt.Errorf("preparing database %s: %w", d.Name, err)
			}
		}
	}
	return nil
}

// Roles makes the roles that log in, lets in those whose turn it is, and makes the empty databases.
func (p *Provisioning) Roles(ctx context.Context) error {
	for _, s := range p.Servers() {
		if err := p.roles(ctx, s); err != nil {
			return fmt.Errorf("preparing the PostgreSQL server at %s: %w", s.Address, err)
		}
	}
	return nil
}

func (p *Provisioning) roles(ctx context.Context, s DatabaseServer) error {
	conn, err := p.first(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, c := range s.Credentials() {
		if err := p.role(ctx, conn, c); err != nil {
			return err
		}
	}
	for _, d := range s.Databases {
		if err := EnsureDatabase(ctx, conn, d.Name, d.Owner, d.Users); err != nil {
			return err
		}
	}
	return nil
}

// first connects as the superuser. A new server has the first of its two users alone, with the password of the one
// whose turn it is.
func (p *Provisioning) first(ctx context.Context, s DatabaseServer) (*pgx.Conn, error) {
	if !p.New {
		return s.connect(ctx, p.Secrets, DatabaseAny)
	}
	_, password, err := LogIn(ctx, p.Secrets, s.Superuser)
	if err != nil {
		return nil, err
	}
	return connectAs(ctx, DSN(s.Address, s.caFile, "", DatabaseAny), postgres.Superuser, password)
}

// role makes a role that may log in with the secret, and locks its alternate out.
func (p *Provisioning) role(ctx context.Context, conn *pgx.Conn, c credential.Credential) error {
	if err := postgres.EnsureRole(ctx, conn, c.User); err != nil {
		return err
	}
	if p.Keep && c.Name != SecretPgBouncer {
		if there, err := hasPassword(ctx, conn, c.User); there || err != nil {
			return err
		}
	}
	user, password, err := LogIn(ctx, p.Secrets, c.Name)
	if err != nil {
		return err
	}
	if err := postgres.SetPassword(ctx, conn, user, password); err != nil {
		return err
	}
	return postgres.SetPassword(ctx, conn, c.Other(user), "")
}

// hasPassword tells whether one of a role's two logins has a password.
func hasPassword(ctx context.Context, conn *pgx.Conn, role string) (there bool, err error) {
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_authid WHERE rolname IN ($1, $2) AND rolpassword IS NOT NULL)",
		role, credential.Alternate(role)).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("looking for the password of role %s: %w", role, err)
	}
	return there, nil
}

func (p *Provisioning) tables(ctx context.Context, s DatabaseServer, d Database) error {
	conn, err := s.connect(ctx, p.Secrets, d.Name)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	switch d.Name {
	case DatabaseMetadata:
		err = PrepareMetadata(ctx, conn)
	case DatabaseTelemetry:
		err = PrepareTelemetry(ctx, conn)
	case DatabaseRegistry:
		err = p.registry(ctx, conn)
	}
	if err != nil || len(d.Pooled) == 0 {
		return err
	}
	return LetThrough(ctx, conn, d.Pooled...)
}

// registry has the registry's tables made by their owner, and prepares them. Where the secret is not the newest
// the registrar makes its tables itself, and the next run prepares them.
func (p *Provisioning) registry(ctx context.Context, conn *pgx.Conn) error {
	pool, err := OpenAs(ctx, p.Description, p.Secrets, RoleRegistrar, DatabaseRegistry)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := p.Registry(ctx, pool); err != nil && (!p.Keep || !postgres.Refused(err)) {
		return err
	}
	return PrepareRegistry(ctx, conn)
}

// OpenAs opens a database as a role that logs in.
func OpenAs(ctx context.Context, d Description, secrets secret.Source, role, name string) (*database.Pool, error) {
	store := secret.NewStore(secret.Chain{secrets}, slog.New(slog.DiscardHandler))
	pool, err := database.Open(ctx, d.DSN(role, name), secret.Login{Store: store, Password: secretOf(role)})
	if err != nil {
		return nil, fmt.Errorf("opening database %s as %s: %w", name, role, err)
	}
	return pool, nil
}

// secretOf is the name of the secret that a role of PostgreSQL logs in with.
func secretOf(role string) string {
	for _, c := range credential.Of(credential.Postgres) {
		if c.User == role {
			return c.Name
		}
	}
	return ""
}
