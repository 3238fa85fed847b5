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

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Restore fills a state directory that is empty, or not there, or that another
// restore left.
func Restore(ctx context.Context, archive *backup.Reader, st mesh.State, tables map[string]mesh.Migration, out io.Writer, log *slog.Logger) (err error) {
	made := !mesh.Exists(st.Dir)
	if err := RefuseFull(st); err != nil {
		return err
	}
	lock, err := st.Lock()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	m := &Parts{
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
	l := &mesh.Loader{Secrets: m.Secrets, Manifest: &archive.Manifest, Parts: archive, Migrations: tables, Out: out, Log: log}
	if err := m.loadStreams(ctx, l); err != nil {
		return err
	}
	if err := m.loadDatabases(ctx, l); err != nil {
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
func (m *Parts) openRestored() error {
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

// loadStreams starts a server for the streams alone.
func (m *Parts) loadStreams(ctx context.Context, l *mesh.Loader) (err error) {
	server, err := m.startNATS(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopped(ctx, server.Stop)) }()
	store := secret.NewStore(m.Secrets.Chain, slog.New(slog.DiscardHandler))
	nc, err := stream.Connect(stream.Config{URL: "nats://in-process", InProcess: server.InProcess()}, natsserver.Operator, mesh.NatsCredential(store, natsserver.Operator), m.Log)
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
	return l.Streams(ctx, js)
}

// loadDatabases starts a new cluster, which knows its first role alone.
func (m *Parts) loadDatabases(ctx context.Context, l *mesh.Loader) (err error) {
	_, password, err := mesh.LogIn(ctx, m.Secrets, mesh.SecretSuperuser)
	if err != nil {
		return err
	}
	cluster, err := m.startPostgres(ctx, postgres.Superuser, password)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopped(ctx, cluster.Stop)) }()
	l.Description = m.Describe()
	return l.Databases(ctx)
}
