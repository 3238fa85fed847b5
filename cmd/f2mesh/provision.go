package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"runtime"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/credential"
	"github.com/f2mesh/f2mesh/pkg/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/postgres"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Roles, databases and further secrets of the local PostgreSQL.
const (
	roleDecoder = "f2mesh_decoder" // reads metadata
	roleWriter  = "f2mesh_writer"  // owns the tables of readings
	roleReader  = "f2mesh_reader"  // reads both: people, dashboards

	databaseMetadata  = "metadata"
	databaseTelemetry = "telemetry"
	metadataSchema    = "fleet"

	secretSuperuser    = "postgres_superuser_password" //nolint:gosec // the name of a secret, not a secret
	secretReader       = "postgres_reader_password"    //nolint:gosec // the name of a secret, not a secret
	secretMQTTOperator = "mqtt_operator_password"      //nolint:gosec // the name of a secret, not a secret
)

// provision makes roles, databases and the demo fleet's metadata, as far as
// they are not there.
func (m *mesh) provision(ctx context.Context) error {
	conn, err := m.superuser(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := ensureRoles(ctx, conn, m.secrets); err != nil {
		return err
	}
	for database, owner := range map[string]string{databaseMetadata: "postgres", databaseTelemetry: roleWriter} {
		if err := ensureDatabase(ctx, conn, database, owner, roleDecoder, roleWriter, roleReader); err != nil {
			return err
		}
	}
	if err := m.provisionTelemetry(ctx); err != nil {
		return err
	}
	return m.seed(ctx)
}

// seed puts the demo fleet into the metadata.
func (m *mesh) seed(ctx context.Context) error {
	conn, err := m.superuser(ctx, databaseMetadata)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := prepareMetadata(ctx, conn); err != nil {
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
	return execute(ctx, conn,
		"GRANT USAGE ON SCHEMA "+metadataSchema+" TO "+roleDecoder+", "+roleReader,
		"GRANT SELECT ON ALL TABLES IN SCHEMA "+metadataSchema+" TO "+roleDecoder+", "+roleReader)
}

func (m *mesh) provisionTelemetry(ctx context.Context) error {
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
		if err := execute(ctx, conn, "CREATE EXTENSION IF NOT EXISTS timescaledb"); err != nil {
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
		user, password, err := logIn(ctx, secrets, c.Secret)
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

// ensureDatabase makes a database that only the roles may connect to.
func ensureDatabase(ctx context.Context, conn *pgx.Conn, name, owner string, roles ...string) error {
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("looking for database %s: %w", name, err)
	}
	if !exists {
		if err := execute(ctx, conn, fmt.Sprintf("CREATE DATABASE %s OWNER %s", name, owner)); err != nil {
			return err
		}
	}
	// The superuser's alternate becomes the superuser only once it is connected.
	roles = append(roles, credential.Alternate(postgres.Superuser))
	return execute(ctx, conn,
		fmt.Sprintf("REVOKE ALL ON DATABASE %s FROM PUBLIC", name),
		fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s", name, strings.Join(roles, ", ")))
}

func (m *mesh) superuser(ctx context.Context, database string) (*pgx.Conn, error) {
	return connectPostgres(ctx, m.dsn("", database), m.secrets, secretSuperuser)
}

// connectPostgres logs in with a credential.
func connectPostgres(ctx context.Context, dsn string, secrets secret.Source, name string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	if config.User, config.Password, err = logIn(ctx, secrets, name); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	return conn, nil
}

// dsn addresses a database of the local cluster, without a password; without a role
// too, if that comes from the credential.
func (m *mesh) dsn(role, database string) string {
	return localDSN(m.cfg.Host, m.ports().Postgres, m.authority.CAFile(), role, database)
}

func localDSN(host string, port int, caFile, role, database string) string {
	u := url.URL{
		Scheme: "postgres", Host: host + ":" + strconv.Itoa(port), Path: "/" + database,
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {caFile}}.Encode(),
	}
	if role != "" {
		u.User = url.User(role)
	}
	return u.String()
}

// issue makes the certificates of controllers that have none.
func issue(authority *identity.Authority, st state, controllers []fleet.Controller) error {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range controllers {
		group.Go(func() error {
			if _, err := authority.IssueDevice(st.devices(), c.MAC, c.SerialNumber); err != nil {
				return fmt.Errorf("issuing the certificate of %s: %w", c.MAC, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// allowRegistered tells the broker's files which controllers have a certificate.
func allowRegistered(st state) error {
	macs, err := st.registered()
	if err != nil {
		return err
	}
	if err := mosquitto.WriteDeviceACL(st.path("mosquitto"), macs); err != nil {
		return fmt.Errorf("letting controllers in: %w", err)
	}
	return nil
}

// enlarge makes the demo fleet of a running mesh at least as large as
// controllers: certificates, the broker's list, metadata.
func enlarge(ctx context.Context, st state, r running, controllers []fleet.Controller, log *slog.Logger) error {
	authority, err := identity.OpenAuthority(st.path("pki"))
	if err != nil {
		return err
	}
	if err := issue(authority, st, controllers); err != nil {
		return err
	}
	if err := allowRegistered(st); err != nil {
		return err
	}
	if err := mosquitto.Reload(st.path("mosquitto")); err != nil {
		return fmt.Errorf("letting controllers in: %w", err)
	}
	secrets, err := st.keeper(log)
	if err != nil {
		return err
	}
	defer secrets.close()
	conn, err := connectPostgres(ctx, localDSN(r.Host, r.Ports.Postgres, r.CAFile, "", databaseMetadata), secrets, secretSuperuser)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fleet.Seed(ctx, conn, metadataSchema, controllers)
}
