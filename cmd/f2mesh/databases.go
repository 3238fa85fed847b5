package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

type provision struct {
	Metadata   string `help:"PostgreSQL server of the metadata (host:port)." default:"postgres:5432"`
	Telemetry  string `help:"TimescaleDB server of the readings (host:port)." default:"timescaledb:5432"`
	CAFile     string `help:"CA certificates to verify the servers with (PEM)." env:"F2MESH_CA" name:"ca" type:"path"`
	SecretsDir string `help:"Directory of secret files." env:"F2MESH_SECRETS_DIR" default:"/run/secrets" type:"path"`
	NATS       string `help:"NATS server." env:"NATS_URL" default:"tls://nats:4222" name:"nats-url"`
	Disk       string `help:"A directory on the disk that holds the streams." default:"/streams" type:"path"`
	stream.Sizes
	VaultAddr string `help:"URL of Vault. If set, current passwords are kept, because the secret files may be outdated." env:"VAULT_ADDR" name:"vault-addr"`

	// Registry makes the registrar's tables, as their owner.
	Registry func(context.Context, *database.Pool) error `kong:"-"`
}

// Run makes streams and consumers, and roles, databases and tables on both servers, as
// far as they are not there, and puts the passwords of the secret files in force.
func (c *provision) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.setUpStreams(ctx, log); err != nil { // first: the bridge needs nothing else
		return err
	}
	for _, s := range []databaseServer{
		{
			address: c.Metadata, superuserSecret: secretSuperuser, secrets: []string{secretPostgres, secretReader, secretRegistry, secretPgBouncer},
			databases: []databaseOf{
				{databaseMetadata, postgres.Superuser, []string{roleDecoder, roleReader, roleRegistrar}, pooled(prepareMetadata, roleDecoder, roleReader)},
				{databaseRegistry, roleRegistrar, []string{roleRegistrar}, c.prepareRegistry},
			},
		},
		{
			address: c.Telemetry, superuserSecret: secretTimescaleSuperuser, secrets: []string{secretTimescale, secretReader, secretPgBouncer},
			databases: []databaseOf{{databaseTelemetry, roleWriter, []string{roleWriter, roleReader}, pooled(prepareTelemetry, roleWriter, roleReader)}},
		},
	} {
		if err := c.provision(ctx, &s); err != nil {
			return fmt.Errorf("preparing %s: %w", s.address, err)
		}
		fmt.Println("the databases on", s.address, "are ready")
	}
	return nil
}

func (c *provision) setUpStreams(ctx context.Context, log *slog.Logger) error {
	sizes := c.Sizes
	sizes.Free = func() (uint64, error) { return doctor.DiskFree(c.Disk) }
	to := operatorStreams{config: stream.Config{URL: c.NATS, CAFile: c.CAFile}, secrets: secret.Files(c.SecretsDir), log: log}
	changes, err := to.setUp(ctx, sizes, false)
	for _, change := range changes {
		fmt.Println(change)
	}
	if err == nil {
		fmt.Println("the streams on", c.NATS, "are ready")
	}
	return err
}

// databaseServer is what one server is to have.
type databaseServer struct {
	address         string
	superuserSecret string
	secrets         []string // of the roles that log in
	databases       []databaseOf
}

type databaseOf struct {
	name, owner string
	users       []string
	prepare     func(context.Context, *pgx.Conn) error // as the superuser
}

// pooled is prepare, and lets the roles through the pooler besides: the reader too,
// because the servers themselves have no published port.
func pooled(prepare func(context.Context, *pgx.Conn) error, roles ...string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		if err := prepare(ctx, conn); err != nil {
			return err
		}
		return letThrough(ctx, conn, roles...)
	}
}

func (c *provision) provision(ctx context.Context, s *databaseServer) error {
	conn, err := c.connect(ctx, s, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := postgres.EnsureRole(ctx, conn, postgres.Superuser); err != nil {
		return err
	}
	for _, name := range s.secrets {
		if err := c.role(ctx, conn, name); err != nil {
			return err
		}
	}
	for _, d := range s.databases {
		if err := ensureDatabase(ctx, conn, d.name, d.owner, d.users); err != nil {
			return err
		}
		if err := c.prepare(ctx, s, d); err != nil {
			return err
		}
	}
	return nil
}

func (c *provision) prepare(ctx context.Context, s *databaseServer, d databaseOf) error {
	conn, err := c.connect(ctx, s, d.name)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return d.prepare(ctx, conn)
}

// prepareRegistry has the registry's tables made by their owner, and seals the audit
// trail. Where the secret files are not the newest the registrar makes its tables
// itself, and the next run seals.
func (c *provision) prepareRegistry(ctx context.Context, conn *pgx.Conn) error {
	host, port, err := hostPort(c.Metadata)
	if err != nil {
		return err
	}
	store := secret.NewStore(secret.Chain{secret.Files(c.SecretsDir)}, slog.New(slog.DiscardHandler))
	pool, err := database.Open(ctx, localDSN(host, port, c.CAFile, roleRegistrar, databaseRegistry),
		secret.Credential{Store: store, Password: secretRegistry})
	if err != nil {
		return fmt.Errorf("opening the registry: %w", err)
	}
	defer pool.Close()
	if err := c.Registry(ctx, pool); err != nil && !postgres.Refused(err) {
		return err
	}
	return sealAudit(ctx, conn)
}

// role makes a role that may log in with the secret, and locks its alternate out.
func (c *provision) role(ctx context.Context, conn *pgx.Conn, name string) error {
	cred, ok := credential.Find(name)
	if !ok {
		return fmt.Errorf("unknown credential %q", name)
	}
	if err := postgres.EnsureRole(ctx, conn, cred.User); err != nil {
		return err
	}
	if c.VaultAddr != "" && name != secretPgBouncer { // whose password init takes from the file
		if there, err := hasPassword(ctx, conn, cred.User); there || err != nil {
			return err
		}
	}
	user, password, err := logIn(ctx, secret.Files(c.SecretsDir), name)
	if err != nil {
		return err
	}
	return errors.Join(
		postgres.SetPassword(ctx, conn, user, password),
		postgres.SetPassword(ctx, conn, cred.Other(user), ""))
}

// hasPassword tells whether one of a role's two logins has a password.
func hasPassword(ctx context.Context, conn *pgx.Conn, role string) (there bool, err error) {
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_authid WHERE rolname IN ($1, $2) AND rolpassword IS NOT NULL)",
		role, credential.Alternate(role)).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("looking for the password of role %s: %w", role, err)
	}
	return there, nil
}

func (c *provision) connect(ctx context.Context, s *databaseServer, database string) (*pgx.Conn, error) {
	return dial(ctx, s.address, c.CAFile, database, postgres.Superuser, secret.Files(c.SecretsDir), s.superuserSecret)
}

// dial connects to a database of another container, as the user, or whom the
// secret is for.
func dial(ctx context.Context, address, caFile, database, user string, secrets secret.Source, name string) (*pgx.Conn, error) {
	password, err := secrets.Lookup(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reading secret %s: %w", name, err)
	}
	host, number, err := hostPort(address)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(localDSN(host, number, caFile, password.Username(user), database))
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	config.Password = password.Reveal()
	if user == postgres.Superuser {
		config.RuntimeParams["search_path"] = trustedPath
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	return conn, nil
}

// hostPort reads an address, with or without PostgreSQL's own port.
func hostPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		host, text = address, "5432"
	}
	if port, err = strconv.Atoi(text); err != nil {
		return "", 0, fmt.Errorf("%s is no host:port: %w", address, err)
	}
	return host, port, nil
}
