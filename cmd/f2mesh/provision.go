package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/fleet"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// provision makes roles, databases and the demo fleet's metadata, as far as
// they are not there.
func (m *localMesh) provision(ctx context.Context) error {
	conn, err := m.superuser(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := ensureRoles(ctx, conn, m.secrets); err != nil {
		return err
	}
	if err := ensureDatabases(ctx, conn); err != nil {
		return err
	}
	if err := m.provisionTelemetry(ctx); err != nil {
		return err
	}
	if err := m.provisionPooler(ctx); err != nil {
		return err
	}
	return m.seed(ctx)
}

// localDatabases are those of the one local cluster.
func localDatabases() []databaseOf {
	return []databaseOf{
		{name: databaseMetadata, owner: postgres.Superuser, users: []string{roleDecoder, roleReader, roleRegistrar}},
		{name: databaseTelemetry, owner: roleWriter, users: []string{roleWriter, roleReader}},
		{name: databaseRegistry, owner: roleRegistrar, users: []string{roleRegistrar}},
	}
}

func ensureDatabases(ctx context.Context, conn *pgx.Conn) error {
	for _, d := range localDatabases() {
		if err := ensureDatabase(ctx, conn, d.name, d.owner, d.users); err != nil {
			return err
		}
	}
	return nil
}

// seed puts the demo fleet into the metadata. Without one the rows are somebody's
// own, whose ids may be the demo's.
func (m *localMesh) seed(ctx context.Context) error {
	conn, err := m.superuser(ctx, databaseMetadata)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := prepareMetadata(ctx, conn); err != nil || m.cfg.Controllers == 0 {
		return err
	}
	return fleet.Seed(ctx, conn, metadataSchema, fleet.Demo(m.cfg.Controllers))
}

// prepareMetadata makes the metadata's tables, as far as they are not there, and
// lets the roles read them.
func prepareMetadata(ctx context.Context, conn *pgx.Conn) error {
	if err := fleet.CreateSchema(ctx, conn, metadataSchema); err != nil {
		return err
	}
	if err := fleet.InstallTrigger(ctx, conn, metadataSchema); err != nil {
		return err
	}
	// A claiming code is a secret of the device and the registrar.
	device := pgx.Identifier{metadataSchema, "Device"}.Sanitize()
	return execute(ctx, conn,
		"GRANT USAGE ON SCHEMA "+metadataSchema+" TO "+roleDecoder+", "+roleReader+", "+roleRegistrar,
		"GRANT SELECT ON ALL TABLES IN SCHEMA "+metadataSchema+" TO "+roleDecoder+", "+roleReader,
		"REVOKE SELECT ON "+device+" FROM "+roleDecoder+", "+roleReader,
		`GRANT SELECT ("DeviceId", "DeviceName", "DeviceTemplateId", "SerialNumber", "Uuid", "MacAddress", "IpAddress", "PcbVersion") ON `+
			device+" TO "+roleDecoder+", "+roleReader,
		`GRANT SELECT ("DeviceId", "MacAddress", "SerialNumber", "ClaimingCode") ON `+device+" TO "+roleRegistrar)
}

func (m *localMesh) provisionTelemetry(ctx context.Context) error {
	conn, err := m.superuser(ctx, databaseTelemetry)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return prepareTelemetry(ctx, conn)
}

// prepareTelemetry lets the reader see what the writer will make.
func prepareTelemetry(ctx context.Context, conn *pgx.Conn) error {
	// The extension takes a superuser; the tables' owner does the rest.
	var available bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')").Scan(&available); err != nil {
		return fmt.Errorf("looking for TimescaleDB: %w", err)
	}
	if available {
		if err := execute(ctx, conn, "CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public"); err != nil {
			return err
		}
	}
	return execute(ctx, conn,
		"GRANT USAGE ON SCHEMA public TO "+roleReader,
		"ALTER DEFAULT PRIVILEGES FOR ROLE "+roleWriter+" IN SCHEMA public GRANT SELECT ON TABLES TO "+roleReader)
}

func execute(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("preparing the databases: %w", err)
		}
	}
	return nil
}

// ensureRoles makes the roles that log in, and lets in those whose turn it is.
func ensureRoles(ctx context.Context, conn *pgx.Conn, secrets secret.Source) error {
	for _, c := range credential.Of(credential.Postgres) {
		if err := postgres.EnsureRole(ctx, conn, c.User); err != nil {
			return err
		}
		user, password, err := logIn(ctx, secrets, c.Name)
		if err != nil {
			return err
		}
		if err := postgres.SetPassword(ctx, conn, user, password); err != nil {
			return err
		}
		if err := postgres.SetPassword(ctx, conn, c.Other(user), ""); err != nil {
			return err
		}
	}
	return nil
}

func ensureDatabase(ctx context.Context, conn *pgx.Conn, name, owner string, users []string) error {
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("looking for database %s: %w", name, err)
	}
	if !exists {
		if err := execute(ctx, conn, fmt.Sprintf("CREATE DATABASE %s OWNER %s", name, owner)); err != nil {
			return err
		}
	}
	// Nobody may connect who has not been named. The superuser's alternate becomes
	// the superuser only once it is connected.
	return execute(ctx, conn,
		fmt.Sprintf("REVOKE ALL ON DATABASE %s FROM PUBLIC", name),
		fmt.Sprintf("REVOKE TEMPORARY ON DATABASE %s FROM PUBLIC", databaseAny),
		fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s, %s", name, strings.Join(users, ", "), credential.Alternate(postgres.Superuser)))
}

func (m *localMesh) superuser(ctx context.Context, database string) (*pgx.Conn, error) {
	return connectPostgres(ctx, m.dsn("", database), m.secrets, secretSuperuser)
}

// trustedPath is the search path of a superuser. A database's owner sets that of all
// who come, and could have a superuser call functions and operators of their own.
const trustedPath = "pg_catalog"

// connectPostgres logs in with a credential.
func connectPostgres(ctx context.Context, dsn string, secrets secret.Source, name string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	if config.User, config.Password, err = logIn(ctx, secrets, name); err != nil {
		return nil, err
	}
	if name == secretSuperuser {
		config.RuntimeParams["search_path"] = trustedPath
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	return conn, nil
}

// dsn addresses a database of the local cluster, without a password; without a role
// too, if that comes from the credential.
func (m *localMesh) dsn(role, database string) string {
	return localDSN(m.cfg.Host, m.ports().Postgres, m.authority.CAFile(), role, database)
}

func localDSN(host string, port int, caFile, role, database string) string {
	u := url.URL{
		Scheme: "postgres", Host: host + ":" + strconv.Itoa(port), Path: "/" + database,
		RawQuery: postgres.Query(url.Values{"sslmode": {"verify-full"}, "sslrootcert": {caFile}}),
	}
	if role != "" {
		u.User = url.User(role)
	}
	return u.String()
}
