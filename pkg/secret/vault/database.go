package vault

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// DatabaseEngine is the engine that makes short-lived PostgreSQL users for people.
type DatabaseEngine struct {
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

func (a *admin) database(context.Context) ([]item, error) {
	if a.Database == nil {
		return nil, nil
	}
	connection, err := a.connection()
	return []item{
		a.engine(databaseMount, api.MountInput{Type: "database", Description: "short-lived users of f2mesh's databases"}),
		connection,
		a.object("database role reader", databaseMount+"/roles/reader", map[string]any{
			"db_name": Prefix,
			"creation_statements": []string{fmt.Sprintf(
				`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE "%s"`, a.Database.Reader)},
			"revocation_statements": []string{`DROP ROLE IF EXISTS "{{name}}"`},
			"default_ttl":           int(readerTTL.Seconds()),
			"max_ttl":               int(readerMaxTTL.Seconds()),
		}),
	}, err
}

// connection is how Vault reaches the database. Vault does not return the password, so
// another one alone is no reason to write: `vault write database/config/f2mesh` does.
func (a *admin) connection() (item, error) {
	u, err := url.Parse(a.Database.URL)
	if err != nil || u.Host == "" {
		return item{}, fmt.Errorf("%q is not the URL of a database, such as postgresql://db.example.org:5432/telemetry?sslmode=verify-full", a.Database.URL)
	}
	u.User = nil
	fields := map[string]any{
		"connection_url": u.Scheme + "://{{username}}:{{password}}@" + u.String()[len(u.Scheme)+len("://"):],
		"username":       a.Database.Username,
	}
	if a.Database.CA != "" {
		fields["tls_ca"] = a.Database.CA
	}
	one := a.object("database connection "+Prefix, databaseMount+"/config/"+Prefix, fields)
	one.look = func(ctx context.Context) (Change, error) {
		now, err := a.read(ctx, databaseMount+"/config/"+Prefix)
		if now != nil {
			now, _ = now["connection_details"].(map[string]any)
		}
		change := compare(now, fields)
		fields["plugin_name"], fields["allowed_roles"] = "postgresql-database-plugin", []string{"reader"}
		fields["password"], fields["password_authentication"] = a.Database.Password.Reveal(), "scram-sha-256"
		return change, err
	}
	return one, nil
}
