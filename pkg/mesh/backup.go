package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// BackupFolders are what of the state directory is in a backup beside streams and
// databases. Everything else there is made of these, or belongs to a run.
func BackupFolders() []string { return []string{"pki", RootFolder, "devices", "secrets"} }

// SettingsFile is beside compose.yaml, which reads it.
const SettingsFile = ".env"

// SigningSecret is the secret that a mesh's backups are signed with. No server knows it,
// no service reads it, and it is in the backup itself, so that a restored mesh signs
// with the same key.
const SigningSecret = "backup_signing_key"

// OpenSigner is that of the secret, which is made on first use.
func OpenSigner(ctx context.Context, files credential.Folder) (backup.Signer, error) {
	value, err := files.Lookup(ctx, SigningSecret)
	if errors.Is(err, secret.ErrNotFound) {
		if err := files.Make(SigningSecret); err != nil {
			return backup.Signer{}, err
		}
		value, err = files.Lookup(ctx, SigningSecret)
	}
	if err != nil {
		return backup.Signer{}, err
	}
	return backup.NewSigner(value.Reveal())
}

// Saver saves one mesh.
type Saver struct {
	*backup.ArchiveWriter
	*Mesh
	Out      io.Writer
	Manifest backup.Manifest
}

// Save saves streams, databases and folders. The comment of `f2mesh backup` says in which order and why.
func (b *Saver) Save(ctx context.Context) error {
	b.Manifest.Arguments, b.Manifest.Containers = b.Description.Issuer.Arguments(), b.Description.Containers
	names, err := b.streams(ctx)
	if err != nil {
		return err
	}
	dumps, err := b.still(ctx, names)
	defer func() {
		for _, d := range dumps {
			_ = d.conn.Close(context.WithoutCancel(ctx))
		}
	}()
	if err != nil {
		return err
	}
	for _, d := range dumps {
		if err := b.dump(ctx, d); err != nil {
			return err
		}
	}
	for _, folder := range BackupFolders() {
		if err := b.Folder(folder); err != nil {
			return err
		}
	}
	if !b.Description.Containers {
		return nil
	}
	return b.file(b.State.Path(SettingsFile))
}

// Show says what save would save.
func (b *Saver) Show(ctx context.Context) error {
	names, err := b.streams(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(b.Out, "would save the streams", strings.Join(names, ", "))
	for _, name := range b.Description.Databases() {
		fmt.Fprintln(b.Out, "would save the database", name)
	}
	fmt.Fprintln(b.Out, "would save the folders", strings.Join(BackupFolders(), ", "))
	return nil
}

// streams are in the order of saving: positions before what they lead to.
func (b *Saver) streams(ctx context.Context) ([]string, error) {
	var names []string
	list := b.JetStream.StreamNames(ctx)
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("listing the streams: %w", err)
	}
	first := []string{streamCommands, "RAW", "PARKED", StreamLatest, "DECODED"}
	slices.SortFunc(names, func(x, y string) int { return Rank(first, x) - Rank(first, y) })
	return names, nil
}

// Rank is the place of a name in the order, behind all for one that is not in it.
func Rank(order []string, name string) int {
	if i := slices.Index(order, name); i >= 0 {
		return i
	}
	return len(order)
}

// still does what has to be done while nothing moves. Commands stand still for their
// own stream alone: one that waits for half a minute is not carried out any more. The
// audit trail goes both ways, from its stream to its table by a consumer that stands
// still, and from the table to the stream by the registrar. So the stream is saved
// behind the table: what was sent before, and taken off the list of what to send, is
// on it.
func (b *Saver) still(ctx context.Context, names []string) (dumps []*snapshot, err error) {
	commands, trail := present(names, streamCommands), present(names, streamAudit)
	if err := b.held(ctx, commands, func() error { return b.each(ctx, commands) }); err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == streamCommands || name == streamAudit })
	err = b.held(ctx, append(slices.Clone(names), trail...), func() error {
		if err := b.each(ctx, names); err != nil {
			return err
		}
		b.Manifest.Created = time.Now().UTC()
		for _, name := range b.Description.Databases() {
			taken, err := b.snapshot(ctx, name)
			if err != nil {
				return err
			}
			dumps = append(dumps, taken)
		}
		return b.each(ctx, trail)
	})
	return dumps, err
}

// present is the name, if it is among the names.
func present(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(one string) bool { return one != name })
}

func (b *Saver) each(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := b.stream(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// held calls do while the streams' consumers stand still.
func (b *Saver) held(ctx context.Context, names []string, do func() error) (err error) {
	began := time.Now()
	hold, err := stream.NewHold(ctx, b.JetStream, names)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, hold.Release(ctx))
		fmt.Fprintf(b.Out, "  consumers of %s stood still for %s\n", strings.Join(names, ", "), time.Since(began).Round(time.Millisecond))
	}()
	if err := do(); err != nil {
		return err
	}
	return hold.Check(ctx)
}

func (b *Saver) stream(ctx context.Context, name string) error {
	var saved stream.Snapshot
	part, err := b.Part(StreamPart(name), 0o600, func(w io.Writer) (err error) {
		saved, err = stream.Save(ctx, b.JetStream, name, w)
		return err
	})
	if err != nil {
		return err
	}
	b.Manifest.Streams = append(b.Manifest.Streams, saved)
	fmt.Fprintf(b.Out, "  stream %-12s %9d messages  %s\n", name, saved.Messages, Size(part.Size))
	return nil
}

// StreamPart is the name of a stream's part of a backup.
func StreamPart(name string) string { return "streams/" + name }

func databasePart(name string) string { return "databases/" + name }

// RowsPart is the name of a table's part of a backup.
func RowsPart(database string, t *postgres.Table) string {
	return databasePart(database) + "/" + t.String()
}

// snapshot is a database as of one moment, as long as its connection lasts.
type snapshot struct {
	database, id string
	conn         *pgx.Conn
	tx           pgx.Tx
}

func (b *Saver) snapshot(ctx context.Context, database string) (*snapshot, error) {
	s := &snapshot{database: database}
	var err error
	if s.conn, err = b.Description.Superuser(ctx, b.Secrets, database); err != nil {
		return nil, err
	}
	s.tx, err = s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err == nil {
		err = s.tx.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&s.id)
	}
	if err != nil {
		_ = s.conn.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("taking a snapshot of database %s: %w", database, err)
	}
	return s, nil
}

func (b *Saver) dump(ctx context.Context, s *snapshot) error {
	saver, err := postgres.NewSaver(ctx, s.tx, SchemaOf(s.database))
	if err != nil {
		return err
	}
	census := postgres.Census{Database: s.database, Rows: map[string]int64{}}
	if census.Migration, err = saver.Migration(ctx); err != nil {
		return err
	}
	if census.Tables, err = saver.Tables(ctx); err != nil {
		return err
	}
	var bytes int64
	for i := range census.Tables {
		t := &census.Tables[i]
		part, err := b.Part(RowsPart(s.database, t), 0o600, func(w io.Writer) (err error) {
			census.Rows[t.String()], err = saver.Save(ctx, t, w)
			return err
		})
		if err != nil {
			return err
		}
		bytes += part.Size
	}
	if census.Sequences, err = saver.Sequences(ctx); err != nil {
		return err
	}
	b.Manifest.Databases = append(b.Manifest.Databases, census)
	fmt.Fprintf(b.Out, "  database %-10s %9d rows      %s\n", s.database, Total(&census), Size(bytes))
	return nil
}

// Folder saves the files of a folder. Each was written in one step, and is read whole.
// A link leads to what a restore could not put back: it is refused, not left out.
func (b *Saver) Folder(name string) error {
	var files int
	root := b.State.Path(name)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err == nil && (entry.IsDir() || name == "secrets" && b.Description.Containers && filepath.Ext(path) != credential.Suffix):
			return nil
		case err == nil && !entry.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder: put there what it leads to", path)
		case err == nil:
			err = b.file(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not there at all, or gone meanwhile
		}
		files++
		return err
	})
	if err != nil {
		return fmt.Errorf("saving %s: %w", name, err)
	}
	fmt.Fprintf(b.Out, "  folder %-12s %9d files\n", name, files)
	return nil
}

func (b *Saver) file(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path) //nolint:gosec // a file of the state directory
	if err != nil {
		return err
	}
	inside, err := filepath.Rel(b.State.Dir, path)
	if err != nil {
		return err
	}
	_, err = b.Part(FilePart+filepath.ToSlash(inside), info.Mode(), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	return err
}

// FilePart is before the names of files' parts.
const FilePart = "files/"

// Total is the number of rows of a database.
func Total(c *postgres.Census) (rows int64) {
	for _, n := range c.Rows {
		rows += n
	}
	return rows
}

// Size is a number of bytes as people read it.
func Size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// DescribeBackup prints what a backup holds.
func DescribeBackup(out io.Writer, archive *backup.Reader) {
	m := &archive.Manifest
	fmt.Fprintf(out, "backup of %s by f2mesh %s, %d parts, signed by %s\n", m.Created.Format("2006-01-02 15:04:05 MST"), m.Version, len(m.Parts), cmp.Or(archive.Signer, "nobody"))
	for _, s := range m.Streams {
		fmt.Fprintf(out, "  stream %-12s %9d messages, the last is %d\n", s.Name, s.Messages, s.LastSequence)
		for _, c := range s.Consumers {
			fmt.Fprintf(out, "    %-17s %9d acknowledged\n", c.Name, c.AckFloor)
		}
	}
	for _, d := range m.Databases {
		fmt.Fprintf(out, "  database %-10s %9d rows\n", d.Database, Total(&d))
	}
}

// SayWhatToKeep tells a person what belongs beside a backup.
func SayWhatToKeep(out io.Writer, file string, signer backup.Signer) {
	fmt.Fprintf(out, "saved to %s, signed by %s\n", file, signer.Public())
	fmt.Fprintf(out, "keep that and the backup's key elsewhere, and try the backup: f2mesh restore --dry-run --from %s --signer %s\n",
		ShellQuote(file), signer.Public())
}
