package mesh

import (
	"net"
	"net/url"
	"strconv"

	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

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
func (d Description) NATSURL() string { return "tls://" + d.address(ServerNATS, d.Ports.NATS) }

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
		RawQuery: postgres.Query(url.Values{"sslmode": {"verify-full"}, "sslrootcert": {caFile}}),
	}
	if role != "" {
		u.User = url.User(role)
	}
	return u.String()
}
