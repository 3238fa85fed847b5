package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

const (
	superuser = "postgres_superuser_password"
	// telemetrySuperuser is that of the server at Ports.Telemetry.
	telemetrySuperuser = "timescale_superuser_password"

	decoderSecret   = "postgres_password"
	writerSecret    = "timescale_password"
	registrarSecret = "registry_password"
	readerSecret    = "postgres_reader_password" //nolint:gosec // a name
	poolerSecret    = "pgbouncer_password"

	metadata  = "metadata"
	telemetry = "telemetry"
	registry  = "registry"
	console   = "pgbouncer" // the database that is the pooler itself

	encrypted, plainText = "verify-full", "disable" // values of sslmode
)

func (t *Target) needDatabase() {
	need(!t.Containers || t.Ports.Postgres != 0, "no database has a published port: EXPOSE_DATABASE_PORTS=true publishes it on this machine")
}

// connect logs in to a database at a port, with TLS as mode says.
func (t *Target) connect(ctx context.Context, port int, l login, database, mode string) (*pgx.Conn, error) {
	u := url.URL{
		Scheme: "postgres", Host: t.address(port), Path: "/" + database, User: url.User(l.user),
		RawQuery: postgres.EncodeQuery(url.Values{"sslmode": {mode}, "sslrootcert": {t.CAFile}, "connect_timeout": {"10"}, "passfile": {os.DevNull}}),
	}
	config, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, err
	}
	config.Password = l.password
	return pgx.ConnectConfig(ctx, config)
}

func hangUp(ctx context.Context, conn *pgx.Conn) {
	if conn != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
	}
}

// logIn is a login with TLS, which ends at once.
func (t *Target) logIn(ctx context.Context, port int, l login, database string) func() error {
	return func() error {
		conn, err := t.connect(ctx, port, l, database, encrypted)
		hangUp(ctx, conn)
		return err
	}
}

// postgresPort is the port of the server that has a database.
func (t *Target) postgresPort(database string) int {
	if database == telemetry && t.Ports.Telemetry != 0 {
		return t.Ports.Telemetry
	}
	return t.Ports.Postgres
}

// roleOf is the login with a secret at the server that has a database.
func (t *Target) roleOf(ctx context.Context, secret, database string) login {
	if secret == superuser && t.postgresPort(database) != t.Ports.Postgres {
		secret = telemetrySuperuser
	}
	return t.login(ctx, secret)
}

func (t *Target) role(ctx context.Context, secret, database string) (*pgx.Conn, error) {
	return t.connect(ctx, t.postgresPort(database), t.roleOf(ctx, secret, database), database, encrypted)
}

// plainLogin is a login without TLS, which a server must refuse before it requests a password,
// with a message that contains refusal. No valid password is sent.
func (t *Target) plainLogin(ctx context.Context, port int, user, refusal string) func() error {
	return func() error {
		conn, err := t.connect(ctx, port, login{user, marker()}, telemetry, plainText)
		hangUp(ctx, conn)
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && strings.Contains(refused.Message, refusal) {
			return err
		}
		return nil // the server accepts connections without TLS
	}
}

func databaseTLS(ctx context.Context, t *Target) Finding {
	t.needDatabase()
	reader, port := t.login(ctx, readerSecret), t.postgresPort(telemetry)
	return refused(attempt{"without TLS", t.logIn(ctx, port, reader, telemetry), t.plainLogin(ctx, port, reader.user, "no encryption")})
}

func databasePassword(ctx context.Context, t *Target) Finding {
	t.needDatabase()
	reader, port := t.login(ctx, readerSecret), t.postgresPort(telemetry)
	control := t.logIn(ctx, port, reader, telemetry)
	return refused(
		attempt{"no password", control, t.logIn(ctx, port, login{reader.user, ""}, telemetry)},
		attempt{"wrong password", control, t.logIn(ctx, port, login{reader.user, marker()}, telemetry)})
}

func postgresSync(ctx context.Context, t *Target) Finding {
	t.needDatabase()
	var problems []string
	for _, database := range []string{metadata, telemetry} { // which may be on two servers
		conn := must(t.role(ctx, superuser, database))
		defer hangUp(ctx, conn)
		for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
			var value string
			ensure(conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value))
			if value != "on" {
				problems = append(problems, name+" is "+value)
			}
		}
	}
	slices.Sort(problems)
	return verdict(slices.Compact(problems), "all are on")
}

// failedLogins logs in as users that do not exist.
func failedLogins(ctx context.Context, t *Target) Finding {
	files := t.logs()
	natsUser, postgresUser := marker(), marker()
	if t.natsLogin(login{natsUser, marker()})() == nil {
		return failed("NATS accepted an unknown user")
	}
	if t.logIn(ctx, t.postgresPort(telemetry), login{postgresUser, marker()}, telemetry)() == nil {
		return failed("PostgreSQL accepted an unknown user")
	}
	var problems []string
	for server, user := range map[string]string{"NATS": natsUser, "PostgreSQL": postgresUser} {
		if !logged(ctx, files, user) {
			problems = append(problems, server+" did not log the attempt")
		}
	}
	return verdict(problems, "NATS and PostgreSQL logged the attempts")
}

// logged waits until a file has the text.
func logged(ctx context.Context, files []string, text string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		for _, path := range files {
			if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), text) { //nolint:gosec // the mesh's log
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// forbidden are statements that a role must not run in a database. They change nothing if it
// may.
type forbidden struct {
	secret, database string
	statements       []string
}

// connect stands for no statement: the role must not even connect.
const connect = ""

func forbiddenSQL() []forbidden {
	const (
		update = `UPDATE fleet."Device" SET "DeviceName" = "DeviceName" WHERE false`
		remove = `DELETE FROM fleet."DataPoint" WHERE false`
		code   = `SELECT "ClaimingCode" FROM fleet."Device" WHERE false`
		create = `CREATE TABLE fleet.doctor (x int)`
		hashes = `SELECT rolpassword FROM pg_authid WHERE false`
		file   = `SELECT pg_read_file('PG_VERSION')`
		lookup = `SELECT f2mesh_pgbouncer.lookup('postgres')` // for PgBouncer alone
	)
	return []forbidden{
		{decoderSecret, metadata, []string{update, remove, code, create, hashes, lookup}},
		{decoderSecret, telemetry, []string{connect}},
		{decoderSecret, registry, []string{connect}},
		{writerSecret, metadata, []string{connect}},
		{writerSecret, registry, []string{connect}},
		{writerSecret, telemetry, []string{hashes, file, lookup}},
		{registrarSecret, metadata, []string{update, create}},
		{registrarSecret, telemetry, []string{connect}},
		{registrarSecret, registry, []string{hashes}},
		{readerSecret, telemetry, []string{
			`DELETE FROM measurement WHERE false`, `INSERT INTO measurement SELECT * FROM measurement WHERE false`,
			`DELETE FROM device_event WHERE false`, `CREATE TABLE public.doctor (x int)`, file,
		}},
		{readerSecret, metadata, []string{update, code, lookup}},
		{readerSecret, registry, []string{`SELECT FROM audit`, `SELECT FROM claim`, `UPDATE device SET status = status WHERE false`, `CREATE TABLE public.doctor (x int)`}},
		{poolerSecret, metadata, []string{update, code, hashes}},
		{poolerSecret, telemetry, []string{`SELECT FROM measurement WHERE false`}},
		{poolerSecret, registry, []string{connect}},
	}
}

func databasePrivileges(ctx context.Context, t *Target) Finding {
	t.needDatabase()
	var problems []string
	tried := 0
	for _, f := range forbiddenSQL() {
		for _, statement := range f.statements {
			tried++
			err := t.run(ctx, f.secret, f.database, statement)
			refusal, isRefusal := errors.AsType[*pgconn.PgError](err)
			switch {
			case err == nil:
				problems = append(problems, fmt.Sprintf("the role of %s may do this in %s: %s", f.secret, f.database, cmp.Or(statement, "connect")))
			case isRefusal && refusal.Code == "42501": // insufficient_privilege
			case isRefusal && refusal.Code == "28P01" && statement == connect && t.Ports.Telemetry != 0: // the other server has no such role
			default:
				problems = append(problems, fmt.Sprintf("%s in %s: not tested: %v", f.secret, f.database, err))
			}
		}
	}
	return verdict(problems, "%d attempts, all refused", tried)
}

// run runs the statement and rolls it back.
func (t *Target) run(ctx context.Context, secret, database, statement string) error {
	conn, err := t.role(ctx, secret, database)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	if statement == connect {
		return nil
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	_, err = tx.Exec(ctx, statement)
	return err
}

// databasePooler tries logins to PgBouncer, and a command that makes it read its files again,
// which does no harm. The control of each is what the same role may do: log in through the
// pooler or to PostgreSQL, or run another command.
func databasePooler(ctx context.Context, t *Target) Finding {
	need(t.Ports.PgBouncer != 0, "this mesh runs no PgBouncer")
	pooled, registrar, own := t.login(ctx, writerSecret), t.login(ctx, registrarSecret), t.login(ctx, poolerSecret)
	pooler := func(l login, database string) func() error { return t.logIn(ctx, t.Ports.PgBouncer, l, database) }
	control := pooler(pooled, telemetry)
	attempts := []attempt{
		{"no password", control, pooler(login{pooled.user, ""}, telemetry)},
		{"wrong password", control, pooler(login{pooled.user, marker()}, telemetry)},
		{"without TLS", control, t.plainLogin(ctx, t.Ports.PgBouncer, pooled.user, "SSL required")},
		{"a service on the console", t.command(ctx, own, "SHOW POOLS"), pooler(pooled, console)},
	}
	if t.Ports.Postgres == 0 {
		return refused(attempts...) // nothing shows that the passwords of the others are valid
	}
	direct := func(l login, database string) func() error {
		return t.logIn(ctx, t.postgresPort(database), l, database)
	}
	outsider := func(secret, database string) attempt {
		l := t.roleOf(ctx, secret, database)
		return attempt{"the role of " + secret, direct(l, database), pooler(l, database)}
	}
	attempts = append(attempts,
		attempt{"the registrar on the console", direct(registrar, metadata), pooler(registrar, console)},
		outsider(superuser, telemetry), outsider(registrarSecret, metadata))
	if !t.Containers { // where people have no other way
		attempts = append(attempts, outsider(readerSecret, telemetry))
	}
	return refused(attempts...)
}

// command runs a command on the pooler's console, which has the simple protocol only.
func (t *Target) command(ctx context.Context, l login, text string) func() error {
	return func() error {
		conn, err := t.connect(ctx, t.Ports.PgBouncer, l, console, encrypted)
		if err != nil {
			return err
		}
		defer hangUp(ctx, conn)
		_, err = conn.PgConn().Exec(ctx, text).ReadAll()
		return err
	}
}
