package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// RoleRestore adds the rows of a backup and owns nothing. It is there during a restore.
const RoleRestore = "f2mesh_restore"

// Migration makes the tables of a database, as of a migration's number, as their owner.
type Migration func(ctx context.Context, pool *database.Pool, number int64, log *slog.Logger) error

// Loader fills the servers of a mesh that are empty with streams and rows of a backup.
type Loader struct {
	Description
	Secrets  secret.Source
	Manifest *backup.Manifest
	// Parts has the parts that LoadedParts names, and may have them in that order alone.
	Parts interface {
		Part(name string, read func(io.Reader) error) error
	}
	Migrations map[string]Migration // by database
	Out        io.Writer
	Log        *slog.Logger
}

// LoadedParts are the parts that a Loader reads, in its order.
func LoadedParts(m *backup.Manifest) (names []string) {
	for _, s := range loadedStreams(m) {
		names = append(names, StreamPart(s.Name))
	}
	for _, d := range m.Databases {
		for i := range d.Tables {
			names = append(names, RowsPart(d.Database, &d.Tables[i]))
		}
	}
	return names
}

// loadedStreams are in an order in which a stream that is filled from another comes after it.
func loadedStreams(m *backup.Manifest) []stream.Snapshot {
	all := slices.Clone(m.Streams)
	slices.SortStableFunc(all, func(x, y stream.Snapshot) int {
		return -(Rank([]string{StreamLatest}, x.Name) - Rank([]string{StreamLatest}, y.Name))
	})
	return all
}

// Streams restores the streams with their consumers.
func (l *Loader) Streams(ctx context.Context, js jetstream.JetStream) error {
	for _, s := range loadedStreams(l.Manifest) {
		restore := func(r io.Reader) error { return stream.Restore(ctx, js, &s, r) }
		if err := l.Parts.Part(StreamPart(s.Name), restore); err != nil {
			return err
		}
		fmt.Fprintf(l.Out, "restored stream %s\n", s.Name)
	}
	return nil
}

// Databases makes roles and databases on servers that know no role but their first, and fills them. Tables, functions,
// owners and privileges are those that this program makes; of the backup are rows alone, which a role without rights adds.
func (l *Loader) Databases(ctx context.Context) error {
	if err := (&Provisioning{Description: l.Description, Secrets: l.Secrets, New: true}).Roles(ctx); err != nil {
		return err
	}
	password := credential.Generate()
	if err := l.everywhere(ctx, func(conn *pgx.Conn) error {
		if err := Execute(ctx, conn, "CREATE ROLE "+RoleRestore+" LOGIN"); err != nil {
			return err
		}
		return postgres.SetPassword(ctx, conn, RoleRestore, password)
	}); err != nil {
		return err
	}
	for _, d := range l.Manifest.Databases {
		if !slices.Contains(l.Description.Databases(), d.Database) {
			return fmt.Errorf("the backup has a database %q, which no backup should have", d.Database)
		}
		if err := l.database(ctx, &d, password); err != nil {
			return fmt.Errorf("restoring database %s: %w", d.Database, err)
		}
		fmt.Fprintf(l.Out, "restored database %s\n", d.Database)
	}
	return l.everywhere(ctx, func(conn *pgx.Conn) error { return Execute(ctx, conn, "DROP ROLE "+RoleRestore) })
}

// everywhere does something on each server, as its superuser.
func (l *Loader) everywhere(ctx context.Context, do func(*pgx.Conn) error) error {
	for _, s := range l.Servers() {
		conn, err := s.connect(ctx, l.Secrets, DatabaseAny)
		if err != nil {
			return err
		}
		err = do(conn)
		_ = conn.Close(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Loader) database(ctx context.Context, want *postgres.Census, password string) (err error) {
	super, err := l.Superuser(ctx, l.Secrets, want.Database)
	if err != nil {
		return err
	}
	defer func() { _ = super.Close(context.WithoutCancel(ctx)) }()
	owner, err := l.make(ctx, super, want)
	if err != nil {
		return err
	}
	defer func() { _ = owner.Close(context.WithoutCancel(ctx)) }()
	if err := Execute(ctx, super, "GRANT CONNECT ON DATABASE "+want.Database+" TO "+RoleRestore); err != nil {
		return err
	}
	rows, err := connectAs(ctx, l.DSN("", want.Database), RoleRestore, password)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close(context.WithoutCancel(ctx)) }()
	if err := l.fill(ctx, postgres.NewLoader(super, owner, rows, SchemaOf(want.Database)), want); err != nil {
		return err
	}
	switch want.Database { // what depends on rows, or would have changed them
	case DatabaseMetadata:
		return PrepareMetadata(ctx, super) // with the trigger that announces changes
	case DatabaseRegistry:
		return PrepareRegistry(ctx, super)
	}
	return nil
}

// make makes a database's tables as those of the backup were, and connects as their owner. What is newer of them comes
// with the start of the mesh.
func (l *Loader) make(ctx context.Context, super *pgx.Conn, want *postgres.Census) (owner *pgx.Conn, err error) {
	if want.Database == DatabaseMetadata {
		if err := fleet.CreateSchema(ctx, super, MetadataSchema); err != nil {
			return nil, err
		}
		return l.Superuser(ctx, l.Secrets, want.Database)
	}
	if want.Database == DatabaseTelemetry {
		if err := PrepareTelemetry(ctx, super); err != nil {
			return nil, err
		}
	}
	migrate, ok := l.Migrations[want.Database]
	if !ok {
		return nil, errors.New("unknown database")
	}
	role := map[string]string{DatabaseTelemetry: RoleWriter, DatabaseRegistry: RoleRegistrar}[want.Database]
	pool, err := OpenAs(ctx, l.Description, l.Secrets, role, want.Database)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := migrate(ctx, pool, want.Migration, l.Log); err != nil {
		return nil, err
	}
	return pool.Dedicated(ctx)
}

func (l *Loader) fill(ctx context.Context, to *postgres.RowLoader, want *postgres.Census) error {
	made, err := to.Prepare(ctx, want.Tables)
	if err != nil {
		return err
	}
	for _, one := range made {
		fmt.Fprintf(l.Out, "  %s is not f2mesh's: it has its rows, but no indexes, rules and privileges\n", one)
	}
	for i := range want.Tables {
		t := &want.Tables[i]
		var n int64
		err := l.Parts.Part(RowsPart(want.Database, t), func(r io.Reader) (err error) {
			n, err = to.Load(ctx, t, r)
			return err
		})
		if err != nil {
			return err
		}
		if n != want.Rows[t.String()] && !t.Aggregate {
			return fmt.Errorf("table %s has %d rows after the restore, and had %d", t, n, want.Rows[t.String()])
		}
	}
	return errors.Join(to.Continue(ctx, want.Sequences), to.Close(ctx))
}
