package vault

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Database is the engine that makes short-lived PostgreSQL users for people.
type Database struct {
	URL      string       // as Vault reaches the database; without user name and password
	CA       string       // PEM of the CA of the server's certificate, "": the system's
	Username string       // who makes the users
	Password secret.Value // of Username
	Reader   string       // the role that the users are members of
}

const (
	databaseMount = "database"
	readerTTL     = time.Hour
	readerMaxTTL  = 24 * time.Hour
)

func (a *admin) database(ctx context.Context) error {
	if a.Database == nil {
		return nil
	}
	if err := a.engine(ctx, databaseMount, api.MountInput{Type: "database", Description: "short-lived users of f2mesh's databases"}); err != nil {
		return err
	}
	if err := a.connection(ctx); err != nil {
		return err
	}
	return a.object(ctx, "database role reader", databaseMount+"/roles/reader", map[string]any{
		"db_name": Prefix,
		"creation_statements": []string{fmt.Sprintf(
			`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE "%s"`, a.Database.Reader)},
		"revocation_statements": []string{`DROP ROLE IF EXISTS "{{name}}"`},
		"default_ttl":           int(readerTTL.Seconds()),
		"max_ttl":               int(readerMaxTTL.Seconds()),
	})
}

// connection tells Vault of the database. Vault does not give the password back,
// so another one alone is no reason to write: `vault write database/config/f2mesh`
// does.
func (a *admin) connection(ctx context.Context) error {
	u, err := url.Parse(a.Database.URL)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is not the URL of a database, such as postgresql://db.example.org:5432/telemetry?sslmode=verify-full", a.Database.URL)
	}
	u.User = nil
	address := u.Scheme + "://{{username}}:{{password}}@" + u.String()[len(u.Scheme)+len("://"):]
	what, path := "database connection "+Prefix, databaseMount+"/config/"+Prefix
	now, err := a.read(ctx, path)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", what, err)
	}
	fields := map[string]any{"connection_url": address, "username": a.Database.Username}
	if a.Database.CA != "" {
		fields["tls_ca"] = a.Database.CA
	}
	change := Made
	if now != nil {
		change = Changed
		details, _ := now["connection_details"].(map[string]any)
		if holds(details, fields) {
			change = Unchanged
		}
	}
	return a.step(what, change, func() error {
		fields["plugin_name"], fields["allowed_roles"] = "postgresql-database-plugin", []string{"reader"}
		fields["password"], fields["password_authentication"] = a.Database.Password.Reveal(), "scram-sha-256"
		_, err := a.api.Logical().WriteWithContext(ctx, path, fields)
		return err
	})
}
