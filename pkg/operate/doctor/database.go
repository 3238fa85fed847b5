package doctor

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

const (
	superuser = "postgres_superuser_password"
	// telemetrySuperuser is that of the server that Ports.Telemetry is of.
	telemetrySuperuser = "timescale_superuser_password"

	metadata  = "metadata"
	telemetry = "telemetry"
	registry  = "registry"
)

func databaseChecks() []Check {
	return []Check{
		{
			"database-ports", "Database Security: Network Isolation", "where PostgreSQL's and PgBouncer's ports listen",
			"restart the mesh, which has them on loopback; give PostgreSQL elsewhere another listen_addresses", databasePorts,
		},
		{
			"database-tls", "Database Security: Access Control", "a login without TLS",
			"hostssl lines alone in pg_hba.conf, and reload", databaseTLS,
		},
		{
			"database-password", "Authentication tests", "logins with no password and with a wrong one",
			"scram-sha-256 in every line of pg_hba.conf, and reload", databasePassword,
		},
		{
			"database-privileges", "Best practices: least privilege", "each role's access to what it has nothing to do with",
			"REVOKE what the item names from the role", databasePrivileges,
		},
		{
			"database-failed-logins", "Monitoring: failed authentication attempts logged", "wrong logins to PostgreSQL and NATS, and their lines in the mesh's log",
			"log_min_messages of warning or lower in postgresql.conf; a log level of error or lower for f2mesh", failedLogins,
		},
		poolerCheck(),
	}
}

// databasePorts reads the kernel's tables of sockets.
func databasePorts(_ context.Context, m *Mesh) Finding {
	var problems []string
	found := 0
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		addresses, err := listening(table)
		if err != nil {
			continue // no IPv6, or no Linux
		}
		for _, a := range addresses {
			if !slices.Contains([]int{m.Ports.Postgres, m.Ports.PgBouncer}, a.Port) {
				continue
			}
			found++
			if !a.IP.IsLoopback() {
				problems = append(problems, fmt.Sprintf("port %d listens on %s", a.Port, a.IP))
			}
		}
	}
	if found == 0 {
		return notChecked("no such socket is on this machine: look where the servers are")
	}
	return verdict(problems, "%d sockets, on loopback only", found)
}

// socket is one that listens.
type socket struct {
	net.TCPAddr
	inode string
}

// listening lists the sockets in state LISTEN (0A).
func listening(table string) ([]socket, error) {
	file, err := os.Open(table) //nolint:gosec // one of two in /proc
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var all []socket
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != "0A" {
			continue
		}
		host, port, _ := strings.Cut(fields[1], ":")
		number, err := strconv.ParseInt(port, 16, 32)
		if err == nil {
			all = append(all, socket{net.TCPAddr{IP: kernelIP(host), Port: int(number)}, fields[9]})
		}
	}
	return all, nil
}

// kernelIP reads an address in the kernel's form: words of 4 bytes, each backwards.
func kernelIP(text string) net.IP {
	ip, err := hex.DecodeString(text)
	if err != nil {
		return nil // which is no loopback
	}
	for word := range slices.Chunk(ip, 4) {
		slices.Reverse(word)
	}
	return ip
}

// connectPostgres logs in, with TLS unless mode says otherwise.
func (m *Mesh) connectPostgres(ctx context.Context, user, password, database, mode string) (*pgx.Conn, error) {
	return m.connectAt(ctx, m.postgresPort(database), user, password, database, mode)
}

func (m *Mesh) connectAt(ctx context.Context, port int, user, password, database, mode string) (*pgx.Conn, error) {
	u := url.URL{
		Scheme: "postgres", Host: m.address(port), Path: "/" + database, User: url.User(user),
		RawQuery: postgres.Query(url.Values{"sslmode": {mode}, "sslrootcert": {m.CAFile}, "connect_timeout": {"10"}, "passfile": {os.DevNull}}),
	}
	config, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, err
	}
	config.Password = password
	return pgx.ConnectConfig(ctx, config)
}

func (m *Mesh) postgresPort(database string) int {
	if database == telemetry && m.Ports.Telemetry != 0 {
		return m.Ports.Telemetry
	}
	return m.Ports.Postgres
}

// ofServer is the secret that a database's server knows.
func (m *Mesh) ofServer(secret, database string) string {
	if secret == superuser && database == telemetry && m.Ports.Telemetry != 0 {
		return telemetrySuperuser
	}
	return secret
}

func (m *Mesh) role(ctx context.Context, secret, database string) (*pgx.Conn, error) {
	user, password, err := m.LogIn(ctx, m.ofServer(secret, database))
	if err != nil {
		return nil, err
	}
	return m.connectPostgres(ctx, user, password, database, "verify-full")
}

func hangUp(ctx context.Context, conn *pgx.Conn) { _ = conn.Close(context.WithoutCancel(ctx)) }

// databaseLogin is one attempt that must be refused.
func (m *Mesh) databaseLogin(ctx context.Context, name, mode string, password func(good string) string) (attempt, error) {
	user, good, err := m.LogIn(ctx, "postgres_reader_password")
	login := func(password, mode string) func() error {
		return func() error {
			conn, err := m.connectPostgres(ctx, user, password, telemetry, mode)
			if err == nil {
				hangUp(ctx, conn)
			}
			return err
		}
	}
	return attempt{name, login(good, "verify-full"), login(password(good), mode)}, err
}

// databaseTLS gives no good password away on a line that is not encrypted: it asks
// whether the server asks for one.
func databaseTLS(ctx context.Context, m *Mesh) Finding {
	a, err := m.databaseLogin(ctx, "without TLS", "disable", func(string) string { return marker() })
	if err != nil {
		return failed("%v", err)
	}
	if err := a.control(); err != nil {
		return failed("cannot be tried: %v", err)
	}
	err = a.try()
	var refusal *pgconn.PgError
	switch {
	case err == nil:
		return failed("let in without TLS")
	case errors.As(err, &refusal) && strings.Contains(refusal.Message, "no encryption"):
		return ok("refused before any password: %s", refusal.Code)
	}
	return failed("the server goes on without TLS: %v", err)
}

func databasePassword(ctx context.Context, m *Mesh) Finding {
	absent, err := m.databaseLogin(ctx, "no password", "verify-full", func(string) string { return "" })
	if err != nil {
		return failed("%v", err)
	}
	wrong, err := m.databaseLogin(ctx, "wrong password", "verify-full", func(string) string { return marker() })
	if err != nil {
		return failed("%v", err)
	}
	return refused([]attempt{absent, wrong})
}

// privilege is a statement that a role must not run. It changes nothing where it
// may; "" means that the role must not even connect.
type privilege struct{ secret, database, statement string }

func forbiddenSQL() []privilege {
	const (
		update = `UPDATE fleet."Device" SET "DeviceName" = "DeviceName" WHERE false`
		remove = `DELETE FROM fleet."DataPoint" WHERE false`
		code   = `SELECT "ClaimingCode" FROM fleet."Device" WHERE false`
		create = `CREATE TABLE fleet.doctor (x int)`
		hashes = `SELECT rolpassword FROM pg_authid WHERE false`
		file   = `SELECT pg_read_file('PG_VERSION')`
		lookup = `SELECT f2mesh_pgbouncer.lookup('postgres')` // PgBouncer's, and nobody else's
	)
	return []privilege{
		{"postgres_password", metadata, update},
		{"postgres_password", metadata, remove},
		{"postgres_password", metadata, code},
		{"postgres_password", metadata, create},
		{"postgres_password", metadata, hashes},
		{"postgres_password", metadata, lookup},
		{"postgres_password", telemetry, ""},
		{"postgres_password", registry, ""},
		{"timescale_password", metadata, ""},
		{"timescale_password", registry, ""},
		{"timescale_password", telemetry, hashes},
		{"timescale_password", telemetry, file},
		{"timescale_password", telemetry, lookup},
		{"registry_password", metadata, update},
		{"registry_password", metadata, create},
		{"registry_password", telemetry, ""},
		{"registry_password", registry, hashes},
		{"postgres_reader_password", telemetry, `DELETE FROM measurement WHERE false`},
		{"postgres_reader_password", telemetry, `INSERT INTO measurement SELECT * FROM measurement WHERE false`},
		{"postgres_reader_password", telemetry, `DELETE FROM device_event WHERE false`},
		{"postgres_reader_password", telemetry, `CREATE TABLE public.doctor (x int)`},
		{"postgres_reader_password", telemetry, file},
		{"postgres_reader_password", metadata, update},
		{"postgres_reader_password", metadata, code},
		{"postgres_reader_password", metadata, lookup},
		{"postgres_reader_password", registry, ""},
		{poolerSecret, metadata, update},
		{poolerSecret, metadata, code},
		{poolerSecret, metadata, hashes},
		{poolerSecret, telemetry, `SELECT FROM measurement WHERE false`},
		{poolerSecret, registry, ""},
	}
}

func databasePrivileges(ctx context.Context, m *Mesh) Finding {
	var problems []string
	for _, p := range forbiddenSQL() {
		err := m.run(ctx, p)
		var refusal *pgconn.PgError
		switch {
		case err == nil:
			problems = append(problems, fmt.Sprintf("the role of %s may do this in %s: %s", p.secret, p.database, cmp.Or(p.statement, "connect")))
		case errors.As(err, &refusal) && m.stranger(p, refusal.Code):
		case !errors.As(err, &refusal) || refusal.Code != "42501": // insufficient_privilege
			problems = append(problems, fmt.Sprintf("%s in %s cannot be tried: %v", p.secret, p.database, err))
		}
	}
	return verdict(problems, "%d attempts, all refused", len(forbiddenSQL()))
}

// stranger tells whether a role was refused because the other server does not know it
// at all (invalid_password).
func (m *Mesh) stranger(p privilege, code string) bool {
	return m.Ports.Telemetry != 0 && p.statement == "" && code == "28P01"
}

// run runs the statement and takes it back.
func (m *Mesh) run(ctx context.Context, p privilege) error {
	conn, err := m.role(ctx, p.secret, p.database)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	if p.statement == "" {
		return nil
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	_, err = tx.Exec(ctx, p.statement)
	return err
}
