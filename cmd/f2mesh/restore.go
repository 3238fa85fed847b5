package main

import (
	"cmp"
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

	"golang.org/x/term"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/schollz/progressbar/v3"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

type restoreCommand struct {
	From           string `help:"Backup file to restore from." required:"" type:"existingfile"`
	Identity       string `help:"File with the age private key, as age-keygen writes it (mode 600)." type:"existingfile" xor:"key" required:""`
	PassphraseFile string `help:"File with the passphrase (mode 600)." type:"existingfile" xor:"key" required:""`
	Signer         string `help:"Signing key that must match, as backup printed it. Not needed with a passphrase." placeholder:"KEY" xor:"trust"`
	Trusted        bool   `help:"Restore a backup that has no known signature. Backups of earlier versions hold SQL that runs as database superuser: use this only if you trust everyone who could write to that mesh." xor:"trust"`
	DryRun         bool   `help:"Verify the whole backup and show its contents without writing anything."`
	Compose        string `help:"Directory of compose.yaml: restore into its volumes, which must be empty, and into secrets/ and .env." placeholder:"DIR" type:"existingdir" group:"Containers (compose.yaml)"`
}

func (c *restoreCommand) key() (backup.Key, error) {
	if c.PassphraseFile != "" {
		return backup.Passphrase(c.PassphraseFile)
	}
	return backup.Identities(c.Identity)
}

// Run checks the whole backup before it writes anything, and then fills the state
// directory. If that fails the directory is empty again.
func (c *restoreCommand) Run(ctx context.Context, g *globals, _ *slog.Logger) error {
	quiet := *g
	if quiet.LogLevel == "info" {
		quiet.LogLevel = "warn" // servers start and stop, which is nothing new
	}
	log := quiet.logger(os.Stderr)
	key, err := c.key()
	if err != nil {
		return err
	}
	archive, err := backup.Open(c.From, key)
	if err != nil {
		return err
	}
	defer func() { _ = archive.Close() }()
	if err := archive.Verify(ctx, verifyProgress()); err != nil {
		return err
	}
	describeBackup(os.Stdout, archive)
	if err := c.trusts(archive); err != nil {
		return err
	}
	if c.Compose != "" && archive.Manifest.Containers {
		return c.restoreContainers(ctx, archive)
	}
	if err := c.fits(&archive.Manifest); err != nil {
		return err
	}
	if c.DryRun {
		fmt.Println("every part is as it was written; nothing was restored")
		return nil
	}
	if err := restoreInto(ctx, archive, state{dir: g.StateDir}, migrations(), os.Stdout, log); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	fmt.Println("restored; start it with:", startCommand(state{dir: g.StateDir}, &archive.Manifest))
	return nil
}

// trusts refuses what somebody else may have written. A dry run runs nothing of it.
func (c *restoreCommand) trusts(archive *backup.Reader) error {
	switch {
	case c.Signer != "" && archive.Signer != c.Signer:
		return fmt.Errorf("the backup was not signed by %s: take another one, or find out who wrote it", c.Signer)
	case c.DryRun || c.Trusted:
		return nil
	case archive.Manifest.Format == backup.FormatDumps:
		return errors.New("the backup is of an earlier version, which did not sign: what its databases hold would run as their superuser. If you know who wrote it, and trust who could write to those databases, give --trusted")
	case c.Signer == "" && c.PassphraseFile == "":
		return errors.New("anybody who has the public key could have written the backup. Compare the key that signed it with the one that backup printed, and name that with --signer; --trusted restores without")
	}
	return nil
}

// fits refuses to make containers of a mesh without, and the other way round. To see
// what is in a backup takes neither.
func (c *restoreCommand) fits(m *backup.Manifest) error {
	switch {
	case c.Compose != "":
		return errors.New("the backup is of a mesh of f2mesh up: leave out --compose")
	case m.Containers && !c.DryRun:
		return errors.New("the backup is of a mesh in containers: name the folder of compose.yaml with --compose")
	}
	return nil
}

// startCommand is how a person starts the mesh of a backup. The demo fleet, which up
// has by default, must not come into somebody's data.
func startCommand(st state, m *backup.Manifest) string {
	command := []string{st.command("up"), "--no-simulate", "--controllers=0"}
	for _, argument := range m.Arguments {
		command = append(command, shellQuote(argument))
	}
	return strings.Join(command, " ")
}

// verifyProgress shows a bar where people look at it.
func verifyProgress() func(done, total int64) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("checking"),
		progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish())
	return func(done, total int64) {
		bar.ChangeMax64(total)
		_ = bar.Set64(done)
	}
}

func describeBackup(out io.Writer, archive *backup.Reader) {
	m := &archive.Manifest
	fmt.Fprintf(out, "backup of %s by f2mesh %s, %d parts, signed by %s\n", m.Created.Format("2006-01-02 15:04:05 MST"), m.Version, len(m.Parts), cmp.Or(archive.Signer, "nobody"))
	if i := slices.IndexFunc(m.Parts, func(p backup.Part) bool { return p.Name == volumesPart }); i >= 0 {
		fmt.Fprintf(out, "  a mesh in containers: %d files of secrets/ and .env, %s of volumes\n", len(m.Parts)-1, size(m.Parts[i].Size))
	}
	for _, s := range m.Streams {
		fmt.Fprintf(out, "  stream %-12s %9d messages, the last is %d\n", s.Name, s.Messages, s.LastSequence)
		for _, c := range s.Consumers {
			fmt.Fprintf(out, "    %-17s %9d acknowledged\n", c.Name, c.AckFloor)
		}
	}
	for _, d := range m.Databases {
		fmt.Fprintf(out, "  database %-10s %9d rows\n", d.Database, total(&d))
	}
}

// restoringFile is in a state directory while a restore fills it. A mesh that has it
// is not whole.
const restoringFile = "restoring"

// errRestoring is why up does not start.
var errRestoring = errors.New("a restore into this state directory was broken off, and it has only a part of the mesh: restore again, which begins anew")

// restoreInto fills a state directory that is empty, or not there, or that another
// restore left.
func restoreInto(ctx context.Context, archive *backup.Reader, st state, tables map[string]migration, out io.Writer, log *slog.Logger) (err error) {
	made := !exists(st.dir)
	if err := refuseFull(st); err != nil {
		return err
	}
	lock, err := st.lock()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	m := &localMesh{
		Supervisor: supervisor.New(log), cfg: localConfig{Host: loopback}, state: st, log: log,
	}
	defer func() {
		if err == nil {
			return
		}
		if err = errors.Join(err, m.remove(), clearState(st)); made {
			err = errors.Join(err, os.RemoveAll(st.dir))
		}
	}()
	if err := errors.Join(m.remove(), clearState(st), beginRestore(st)); err != nil {
		return err
	}
	if err := restoreFiles(archive, st); err != nil {
		return err
	}
	if err := m.openRestored(); err != nil {
		return err
	}
	defer m.secrets.close()
	l := &loader{localMesh: m, archive: archive, tables: tables, out: out}
	if err := l.streams(ctx); err != nil {
		return err
	}
	if err := l.databases(ctx); err != nil {
		return err
	}
	syscall.Sync() // what the servers do not sync themselves, before it counts as restored
	return os.Remove(st.path(restoringFile))
}

// refuseFull refuses a directory that holds anything but what a restore left.
func refuseFull(s state) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && exists(s.path(restoringFile)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the state directory: %w", err)
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != lockFile }) {
		return fmt.Errorf("%s is not empty: name another --state-dir, or move what is there away", s.dir)
	}
	return nil
}

// clearState empties the directory that empty did not refuse, but for the lock.
func clearState(s state) (problems error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockFile {
			problems = errors.Join(problems, os.RemoveAll(s.path(e.Name())))
		}
	}
	return problems
}

// beginRestore notes on disk that what comes is not whole yet.
func beginRestore(s state) error {
	file, err := os.OpenFile(s.path(restoringFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("beginning to restore: %w", err)
	}
	return errors.Join(file.Sync(), file.Close())
}

// restoreFiles writes the files of the backup's folders, and no others.
func restoreFiles(archive *backup.Reader, st state) error {
	root, err := os.OpenRoot(st.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, part := range archive.Manifest.Parts {
		name, ok := strings.CutPrefix(part.Name, filePart)
		if !ok {
			continue
		}
		folder, _, _ := strings.Cut(name, "/")
		if !filepath.IsLocal(name) || path.Clean(name) != name || !slices.Contains(backupFolders(), folder) {
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
func (m *localMesh) openRestored() error {
	flags, err := environmentVault()
	if err != nil {
		return err
	}
	if m.secrets, err = newKeeper(&flags, m.state, m.log); err != nil {
		return err
	}
	if !exists(m.state.path("pki")) {
		return errors.New("the backup has no CA")
	}
	if m.authority, err = identity.OpenAuthority(m.state.path("pki")); err != nil {
		return err
	}
	return m.prepareCertificates()
}

// loader restores into the servers of a state directory.
type loader struct {
	*localMesh
	archive *backup.Reader
	tables  map[string]migration // by database
	out     io.Writer
}

// migration makes the tables of a database, as of a migration's number, as their owner.
type migration func(ctx context.Context, pool *database.Pool, number int64, log *slog.Logger) error

// streams restores the streams in an order in which one that is filled from another
// comes after it.
func (l *loader) streams(ctx context.Context) (err error) {
	server, err := l.startNATS(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopped(ctx, server.Stop)) }()
	store := secret.NewStore(l.secrets.Chain, slog.New(slog.DiscardHandler))
	nc, err := stream.Connect(stream.Config{URL: "nats://in-process", InProcess: server.InProcess()}, natsserver.Operator, natsCredential(store, natsserver.Operator), l.log)
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
		return -(rank([]string{streamLatest}, x.Name) - rank([]string{streamLatest}, y.Name))
	})
	for _, s := range all {
		restore := func(r io.Reader) error { return stream.Restore(ctx, js, &s, r) }
		if err := l.archive.Part(streamPart(s.Name), restore); err != nil {
			return err
		}
		fmt.Fprintf(l.out, "restored stream %s\n", s.Name)
	}
	return nil
}

// databases makes roles and databases, and fills them.
func (l *loader) databases(ctx context.Context) (err error) {
	_, password, err := logIn(ctx, l.secrets, secretSuperuser)
	if err != nil {
		return err
	}
	// The new cluster knows only its first role yet, whoever's turn it is.
	cluster, err := l.startPostgres(ctx, postgres.Superuser, password)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopped(ctx, cluster.Stop)) }()
	if err := l.roles(ctx, cluster.ConnString(postgres.Superuser, password, databaseAny)); err != nil {
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
	if err := ensureRoles(ctx, conn, l.secrets); err != nil {
		return err
	}
	return ensureDatabases(ctx, conn)
}
