package mesh

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// Server is a PostgreSQL server of a mesh.
type Server struct {
	Address   string
	Superuser string // the secret of its superuser
	Databases []Database
	caFile    string
}

// Database is what a database is to have.
type Database struct {
	Name, Owner string
	Users       []string // who may connect
	Pooled      []string // who of them may come through the pooler
}

// Servers are one server with all databases, or one for the metadata and one for the readings.
func (d Description) Servers() []Server {
	// Servers without a published port let people in through the pooler.
	pooled := func(role string) []string {
		if d.Containers {
			return []string{role, RoleReader}
		}
		return []string{role}
	}
	first := Server{
		Address: d.address(ServerMetadata, d.Ports.Postgres), Superuser: SecretSuperuser, caFile: d.CAFile,
		Databases: []Database{
			{DatabaseMetadata, postgres.Superuser, []string{RoleDecoder, RoleReader, RoleRegistrar}, pooled(RoleDecoder)},
			{DatabaseRegistry, RoleRegistrar, []string{RoleRegistrar}, nil},
		},
	}
	telemetry := Database{DatabaseTelemetry, RoleWriter, []string{RoleWriter, RoleReader}, pooled(RoleWriter)}
	if d.Ports.Telemetry == 0 {
		first.Databases = append(first.Databases, telemetry)
		return []Server{first}
	}
	return []Server{first, {
		Address: d.address(ServerTelemetry, d.Ports.Telemetry), Superuser: SecretTimescaleSuperuser, caFile: d.CAFile,
		Databases: []Database{telemetry},
	}}
}

// Databases lists the databases of all servers.
func (d Description) Databases() (names []string) {
	for _, s := range d.Servers() {
		for _, one := range s.Databases {
			names = append(names, one.Name)
		}
	}
	return names
}

// serverOf is the server that has a database.
func (d Description) serverOf(database string) Server {
	all := d.Servers()
	i := slices.IndexFunc(all, func(s Server) bool {
		return slices.ContainsFunc(s.Databases, func(one Database) bool { return one.Name == database })
	})
	return all[max(i, 0)]
}

// Superuser connects to a database as the superuser of its server.
func (d Description) Superuser(ctx context.Context, secrets secret.Source, database string) (*pgx.Conn, error) {
	return d.serverOf(database).connect(ctx, secrets, database)
}

func (s Server) connect(ctx context.Context, secrets secret.Source, database string) (*pgx.Conn, error) {
	return ConnectPostgres(ctx, DSN(s.Address, s.caFile, "", database), secrets, s.Superuser)
}

// Credentials are those of the roles that log in to the server.
func (s Server) Credentials() []credential.Credential {
	return slices.DeleteFunc(append(credential.Of(credential.Postgres), credential.SecondSuperuser()), func(c credential.Credential) bool {
		if c.User == postgres.Superuser {
			return c.Name != s.Superuser
		}
		return c.User != pgbouncer.User && !slices.ContainsFunc(s.Databases, func(d Database) bool { return slices.Contains(d.Users, c.User) })
	})
}

// Credentials are those of the mesh.
func (d Description) Credentials() []credential.Credential {
	all := credential.All()
	if len(d.Servers()) > 1 {
		all = append(all, credential.SecondSuperuser())
	}
	return all
}
