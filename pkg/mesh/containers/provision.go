package containers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

type Provision struct {
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
func (c *Provision) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.setUpStreams(ctx, log); err != nil { // first: the bridge needs nothing else
		return err
	}
	for _, s := range []databaseServer{
		{
			address: c.Metadata, superuserSecret: mesh.SecretSuperuser, secrets: []string{mesh.SecretPostgres, mesh.SecretReader, mesh.SecretRegistry, mesh.SecretPgBouncer},
			databases: []mesh.DatabaseOf{
				{Name: mesh.DatabaseMetadata, Owner: postgres.Superuser, Users: []string{mesh.RoleDecoder, mesh.RoleReader, mesh.RoleRegistrar}, Prepare: pooled(mesh.PrepareMetadata, mesh.RoleDecoder, mesh.RoleReader)},
				{Name: mesh.DatabaseRegistry, Owner: mesh.RoleRegistrar, Users: []string{mesh.RoleRegistrar}, Prepare: c.prepareRegistry},
			},
		},
		{
			address: c.Telemetry, superuserSecret: mesh.SecretTimescaleSuperuser, secrets: []string{mesh.SecretTimescale, mesh.SecretReader, mesh.SecretPgBouncer},
			databases: []mesh.DatabaseOf{{Name: mesh.DatabaseTelemetry, Owner: mesh.RoleWriter, Users: []string{mesh.RoleWriter, mesh.RoleReader}, Prepare: pooled(mesh.PrepareTelemetry, mesh.RoleWriter, mesh.RoleReader)}},
		},
	} {
		if err := c.provision(ctx, &s); err != nil {
			return fmt.Errorf("preparing %s: %w", s.address, err)
		}
		fmt.Println("the databases on", s.address, "are ready")
	}
	return nil
}

func (c *Provision) setUpStreams(ctx context.Context, log *slog.Logger) error {
	sizes := c.Sizes
	sizes.Free = func() (uint64, error) { return doctor.DiskFree(c.Disk) }
	to := mesh.OperatorStreams{Config: stream.Config{URL: c.NATS, CAFile: c.CAFile}, Secrets: secret.Files(c.SecretsDir), Log: log}
	changes, err := to.SetUp(ctx, sizes, false)
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
	databases       []mesh.DatabaseOf
}

// pooled is prepare, and lets the roles through the pooler besides: the reader too,
// because the servers themselves have no published port.
func pooled(prepare func(context.Context, *pgx.Conn) error, roles ...string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		if err := prepare(ctx, conn); err != nil {
			return err
		}
		return mesh.LetThrough(ctx, conn, roles...)
	}
}

func (c *Provision) provision(ctx context.Context, s *databaseServer) error {
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
		if err := mesh.EnsureDatabase(ctx, conn, d.Name, d.Owner, d.Users); err != nil {
			return err
		}
		if err := c.prepare(ctx, s, d); err != nil {
			return err
		}
	}
	return nil
}

func (c *Provision) prepare(ctx context.Context, s *databaseServer, d mesh.DatabaseOf) error {
	conn, err := c.connect(ctx, s, d.Name)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return d.Prepare(ctx, conn)
}

// prepareRegistry has the registry's tables made by their owner, and seals the audit
// trail. Where the secret files are not the newest the registrar makes its tables
// itself, and the next run seals.
func (c *Provision) prepareRegistry(ctx context.Context, conn *pgx.Conn) error {
	host, port, err := mesh.HostPort(c.Metadata)
	if err != nil {
		return err
	}
	store := secret.NewStore(secret.Chain{secret.Files(c.SecretsDir)}, slog.New(slog.DiscardHandler))
	pool, err := database.Open(ctx, mesh.DSN(host, port, c.CAFile, mesh.RoleRegistrar, mesh.DatabaseRegistry),
		secret.Credential{Store: store, Password: mesh.SecretRegistry})
	if err != nil {
		return fmt.Errorf("opening the registry: %w", err)
	}
	defer pool.Close()
	if err := c.Registry(ctx, pool); err != nil && !postgres.Refused(err) {
		return err
	}
	return mesh.SealAudit(ctx, conn)
}

// role makes a role that may log in with the secret, and locks its alternate out.
func (c *Provision) role(ctx context.Context, conn *pgx.Conn, name string) error {
	cred, ok := credential.Find(name)
	if !ok {
		return fmt.Errorf("unknown credential %q", name)
	}
	if err := postgres.EnsureRole(ctx, conn, cred.User); err != nil {
		return err
	}
	if c.VaultAddr != "" && name != mesh.SecretPgBouncer { // whose password init takes from the file
		if there, err := hasPassword(ctx, conn, cred.User); there || err != nil {
			return err
		}
	}
	user, password, err := mesh.LogIn(ctx, secret.Files(c.SecretsDir), name)
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

func (c *Provision) connect(ctx context.Context, s *databaseServer, database string) (*pgx.Conn, error) {
	return mesh.Dial(ctx, s.address, c.CAFile, database, postgres.Superuser, secret.Files(c.SecretsDir), s.superuserSecret)
}
