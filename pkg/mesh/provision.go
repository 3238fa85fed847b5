package mesh

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// PrepareMetadata makes the metadata's tables, as far as they are not there, and
// lets the roles read them.
func PrepareMetadata(ctx context.Context, conn *pgx.Conn) error {
	if err := fleet.CreateSchema(ctx, conn, MetadataSchema); err != nil {
		return err
	}
	if err := fleet.InstallTrigger(ctx, conn, MetadataSchema); err != nil {
		return err
	}
	// A claiming code is a secret of the device and the registrar.
	device := pgx.Identifier{MetadataSchema, "Device"}.Sanitize()
	return Execute(ctx, conn,
		"GRANT USAGE ON SCHEMA "+MetadataSchema+" TO "+RoleDecoder+", "+RoleReader+", "+RoleRegistrar,
		"GRANT SELECT ON ALL TABLES IN SCHEMA "+MetadataSchema+" TO "+RoleDecoder+", "+RoleReader,
		"REVOKE SELECT ON "+device+" FROM "+RoleDecoder+", "+RoleReader,
		`GRANT SELECT ("DeviceId", "DeviceName", "DeviceTemplateId", "SerialNumber", "Uuid", "MacAddress", "IpAddress", "PcbVersion") ON `+
			device+" TO "+RoleDecoder+", "+RoleReader,
		`GRANT SELECT ("DeviceId", "MacAddress", "SerialNumber", "ClaimingCode") ON `+device+" TO "+RoleRegistrar)
}

// PrepareTelemetry lets the reader see what the writer will make.
func PrepareTelemetry(ctx context.Context, conn *pgx.Conn) error {
	// The extension takes a superuser; the tables' owner does the rest.
	var available bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')").Scan(&available); err != nil {
		return fmt.Errorf("looking for TimescaleDB: %w", err)
	}
	if available {
		if err := Execute(ctx, conn, "CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public"); err != nil {
			return err
		}
	}
	return Execute(ctx, conn,
		"GRANT USAGE ON SCHEMA public TO "+RoleReader,
		"ALTER DEFAULT PRIVILEGES FOR ROLE "+RoleWriter+" IN SCHEMA public GRANT SELECT ON TABLES TO "+RoleReader)
}

// Execute runs SQL statements in order, up to the first that fails.
func Execute(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("preparing the databases: %w", err)
		}
	}
	return nil
}

// EnsureDatabase makes a database if it is missing, and lets only its users connect.
func EnsureDatabase(ctx context.Context, conn *pgx.Conn, name, owner string, users []string) error {
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("looking for database %s: %w", name, err)
	}
	if !exists {
		if err := Execute(ctx, conn, fmt.Sprintf("CREATE DATABASE %s OWNER %s", name, owner)); err != nil {
			return err
		}
	}
	// Nobody may connect who has not been named. The superuser's alternate becomes
	// the superuser only once it is connected.
	return Execute(ctx, conn,
		fmt.Sprintf("REVOKE ALL ON DATABASE %s FROM PUBLIC", name),
		fmt.Sprintf("REVOKE TEMPORARY ON DATABASE %s FROM PUBLIC", DatabaseAny),
		fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s, %s", name, strings.Join(users, ", "), credential.Alternate(postgres.Superuser)))
}

// trustedPath is the search path of a superuser. A database's owner sets that of all
// who come, and could have a superuser call functions and operators of their own.
const trustedPath = "pg_catalog"

// ConnectPostgres logs in with a credential.
func ConnectPostgres(ctx context.Context, dsn string, secrets secret.Source, name string) (*pgx.Conn, error) {
	user, password, err := LogIn(ctx, secrets, name)
	if err != nil {
		return nil, err
	}
	return connectAs(ctx, dsn, user, password)
}

func connectAs(ctx context.Context, dsn, user, password string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	config.User, config.Password = user, password
	if user == postgres.Superuser || user == credential.Alternate(postgres.Superuser) {
		config.RuntimeParams["search_path"] = trustedPath
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	return conn, nil
}
