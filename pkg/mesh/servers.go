package mesh

import (
	"context"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// DatabaseServer is a PostgreSQL server of a mesh.
type DatabaseServer struct {
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
func (d Description) Servers() []DatabaseServer {
	// Servers without a published port let people in through the pooler.
	pooled := func(role string) []string {
		if d.Containers {
			return []string{role, RoleReader}
		}
		return []string{role}
	}
	first := DatabaseServer{
		Address: d.address(ServerMetadata, d.Ports.Postgres), Superuser: SecretSuperuser, caFile: d.CAFile,
		Databases: []Database{
			{DatabaseMetadata, postgres.Superuser, []string{RoleDecoder, RoleReader, RoleRegistrar}, pooled(RoleDecoder)},
			{DatabaseRegistry, RoleRegistrar, []string{RoleRegistrar, RoleReader}, nil},
		},
	}
	telemetry := Database{DatabaseTelemetry, RoleWriter, []string{RoleWriter, RoleReader}, pooled(RoleWriter)}
	if d.Ports.Telemetry == 0 {
		first.Databases = append(first.Databases, telemetry)
		return []DatabaseServer{first}
	}
	return []DatabaseServer{first, {
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
func (d Description) serverOf(database string) DatabaseServer {
	all := d.Servers()
	i := slices.IndexFunc(all, func(s DatabaseServer) bool {
		return slices.ContainsFunc(s.Databases, func(one Database) bool { return one.Name == database })
	})
	return all[max(i, 0)]
}

// Superuser connects to a database as the superuser of its server.
func (d Description) Superuser(ctx context.Context, secrets secret.Source, database string) (*pgx.Conn, error) {
	return d.serverOf(database).connect(ctx, secrets, database)
}

func (s DatabaseServer) connect(ctx context.Context, secrets secret.Source, database string) (*pgx.Conn, error) {
	return ConnectPostgres(ctx, DSN(s.Address, s.caFile, "", database), secrets, s.Superuser)
}

// Credentials are those of the roles that log in to the server.
func (s DatabaseServer) Credentials() []credential.Credential {
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

// Names of the servers, which are their hosts in compose.yaml.
const (
	ServerNATS      = "nats"
	ServerMosquitto = "mosquitto"
	ServerMetadata  = "postgres"
	ServerTelemetry = "timescaledb"
	ServerPgBouncer = "pgbouncer"
	ServerHealth    = "health"
)

// address is where a server listens: at Host, or at the host that Hosts has for it.
func (d Description) address(server string, port int) string {
	host, ok := d.Hosts[server]
	if !ok {
		host = d.Host
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// NATSURL is what clients of NATS connect to.
func (d Description) NATSURL() string { return strings.Join(d.natsURLs(), ",") }

// natsURLs are the addresses of all NATS servers.
func (d Description) natsURLs() (urls []string) {
	for _, port := range append([]int{d.Ports.NATS}, d.Ports.Nodes...) {
		urls = append(urls, "tls://"+d.address(ServerNATS, port))
	}
	return urls
}

// NATSNode is the name of one of several NATS servers on this machine, of its part and of its
// directory.
func NATSNode(i int) string {
	if i == 0 {
		return ServerNATS
	}
	return ServerNATS + "-" + strconv.Itoa(i+1)
}

// DSN addresses a database, without a password; without a role too, if that comes from the credential.
func (d Description) DSN(role, database string) string {
	return DSN(d.serverOf(database).Address, d.CAFile, role, database)
}

// PooledDSN addresses a database through the pooler, "" if there is none.
func (d Description) PooledDSN(role, database string) string {
	if d.Ports.PgBouncer == 0 {
		return ""
	}
	return DSN(d.address(ServerPgBouncer, d.Ports.PgBouncer), d.CAFile, role, database)
}

// DSN addresses a database of a PostgreSQL server, or of a pooler.
func DSN(address, caFile, role, database string) string {
	u := url.URL{
		Scheme: "postgres", Host: address, Path: "/" + database,
		RawQuery: postgres.EncodeQuery(url.Values{"sslmode": {"verify-full"}, "sslrootcert": {caFile}}),
	}
	if role != "" {
		u.User = url.User(role)
	}
	return u.String()
}
