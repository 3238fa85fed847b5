package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// RestoringFile is in a state directory while a restore fills it. A mesh that has it
// is not whole.
const RestoringFile = "restoring"

// ErrRestoring is why up does not start.
var ErrRestoring = errors.New("a restore into this state directory was broken off, and it has only a part of the mesh: restore again, which begins anew")

// Restore fills a state directory that is empty, or not there, or that another
// restore left.
func Restore(ctx context.Context, archive *backup.Reader, st mesh.State, tables map[string]Migration, out io.Writer, log *slog.Logger) (err error) {
	made := !mesh.Exists(st.Dir)
	if err := RefuseFull(st); err != nil {
		return err
	}
	lock, err := st.Lock()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	m := &Mesh{
		Supervisor: supervisor.New(log), Cfg: Config{Host: mesh.Loopback}, State: st, Log: log,
	}
	defer func() {
		if err == nil {
			return
		}
		if err = errors.Join(err, m.Remove(), clearState(st)); made {
			err = errors.Join(err, os.RemoveAll(st.Dir))
		}
	}()
	if err := errors.Join(m.Remove(), clearState(st), beginRestore(st)); err != nil {
		return err
	}
	if err := restoreFiles(archive, st); err != nil {
		return err
	}
	if err := m.openRestored(); err != nil {
		return err
	}
	defer m.Secrets.Close()
	l := &loader{Mesh: m, archive: archive, tables: tables, out: out}
	if err := l.streams(ctx); err != nil {
		return err
	}
	if err := l.databases(ctx); err != nil {
		return err
	}
	syscall.Sync() // what the servers do not sync themselves, before it counts as restored
	return os.Remove(st.Path(RestoringFile))
}

// RefuseFull refuses a directory that holds anything but what a restore left.
func RefuseFull(s mesh.State) error {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && mesh.Exists(s.Path(RestoringFile)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the state directory: %w", err)
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != mesh.LockFile }) {
		return fmt.Errorf("%s is not empty: name another --state-dir, or move what is there away", s.Dir)
	}
	return nil
}

// clearState empties the directory that empty did not refuse, but for the lock.
func clearState(s mesh.State) (problems error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != mesh.LockFile {
			problems = errors.Join(problems, os.RemoveAll(s.Path(e.Name())))
		}
	}
	return problems
}

// beginRestore notes on disk that what comes is not whole yet.
func beginRestore(s mesh.State) error {
	file, err := os.OpenFile(s.Path(RestoringFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("beginning to restore: %w", err)
	}
	return errors.Join(file.Sync(), file.Close())
}

// restoreFiles writes the files of the backup's folders, and no others.
func restoreFiles(archive *backup.Reader, st mesh.State) error {
	root, err := os.OpenRoot(st.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, part := range archive.Manifest.Parts {
		name, ok := strings.CutPrefix(part.Name, mesh.FilePart)
		if !ok {
			continue
		}
		folder, _, _ := strings.Cut(name, "/")
		if !filepath.IsLocal(name) || path.Clean(name) != name || !slices.Contains(mesh.BackupFolders(), folder) {
			return fmt.Errorf("the backup has a file %q, which no backup should have", name)
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
		err := archive.Part(part.Name, func(r io.Reader) error {
			data, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			return root.WriteFile(name, data, archive.Mode(part.Name))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// openRestored opens what the restored files hold. Secrets that are not among them
// are in Vault.
func (m *Mesh) openRestored() error {
	flags, err := m.State.VaultFlags()
	if err != nil {
		return err
	}
	if m.Secrets, err = mesh.OpenSecrets(&flags, m.State, m.Log); err != nil {
		return err
	}
	if !mesh.Exists(m.State.Path("pki")) {
		return errors.New("the backup has no CA")
	}
	if m.Authority, err = identity.OpenAuthority(m.State.Path("pki")); err != nil {
		return err
	}
	return m.prepareCertificates()
}

// loader restores into the servers of a state directory.
type loader struct {
	*Mesh
	archive *backup.Reader
	tables  map[string]Migration // by database
	out     io.Writer
}

// Migration makes the tables of a database, as of a migration's number, as their owner.
type Migration func(ctx context.Context, pool *database.Pool, number int64, log *slog.Logger) error

// streams restores the streams in an order in which one that is filled from another
// comes after it.
func (l *loader) streams(ctx context.Context) (err error) {
	server, err := l.startNATS(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopped(ctx, server.Stop)) }()
	store := secret.NewStore(l.Secrets.Chain, slog.New(slog.DiscardHandler))
	nc, err := stream.Connect(stream.Config{URL: "nats://in-process", InProcess: server.InProcess()}, natsserver.Operator, mesh.NatsCredential(store, natsserver.Operator), l.Log)
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := stream.WaitConnected(ctx, nc); err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("opening JetStream: %w", err)
	}
	all := slices.Clone(l.archive.Manifest.Streams)
	slices.SortStableFunc(all, func(x, y stream.Snapshot) int {
		return -(mesh.Rank([]string{mesh.StreamLatest}, x.Name) - mesh.Rank([]string{mesh.StreamLatest}, y.Name))
	})
	for _, s := range all {
		restore := func(r io.Reader) error { return stream.Restore(ctx, js, &s, r) }
		if err := l.archive.Part(mesh.StreamPart(s.Name), restore); err != nil {
			return err
		}
		fmt.Fprintf(l.out, "restored stream %s\n", s.Name)
	}
	return nil
}

// databases makes roles and databases, and fills them.
func (l *loader) databases(ctx context.Context) (err error) {
	_, password, err := mesh.LogIn(ctx, l.Secrets, mesh.SecretSuperuser)
	if err != nil {
		return err
	}
	// The new cluster knows only its first role yet, whoever's turn it is.
	cluster, err := l.startPostgres(ctx, postgres.Superuser, password)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopped(ctx, cluster.Stop)) }()
	if err := l.roles(ctx, cluster.ConnString(postgres.Superuser, password, mesh.DatabaseAny)); err != nil {
		return err
	}
	return l.rows(ctx, cluster)
}

// roles makes the roles that log in, with the passwords of the secrets, and the empty
// databases.
func (l *loader) roles(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := mesh.EnsureRoles(ctx, conn, l.Secrets); err != nil {
		return err
	}
	return mesh.EnsureDatabases(ctx, conn)
}
