package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
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

// backupFolders are what of the state directory is in a backup beside streams and
// databases. Everything else there is made of these, or belongs to a run.
func backupFolders() []string { return []string{"pki", rootFolder, "devices", "secrets"} }

type backupCommand struct {
	To             string   `help:"File to write. It must not exist." required:"" type:"path"`
	Recipient      []string `help:"age public key (age1...) of someone who may restore. May be repeated." placeholder:"age1..." xor:"key" required:""`
	PassphraseFile string   `help:"Encrypt with the passphrase in this file (mode 600) instead of a key." type:"existingfile" xor:"key" required:""`
	Compose        string   `help:"Directory of compose.yaml: back up the containers of that mesh. They are stopped meanwhile." placeholder:"DIR" type:"existingdir" group:"Containers (compose.yaml)"`
	DryRun         bool     `help:"Check that a backup is possible and show what it would contain."`
}

func (c *backupCommand) key() (backup.Key, error) {
	if c.PassphraseFile != "" {
		return backup.Passphrase(c.PassphraseFile)
	}
	return backup.Recipients(c.Recipient)
}

// Run saves the mesh that runs.
//
// All parts are as of one moment. The durable consumers stand still for it, so that
// nothing moves from a stream to the next or into a table; the bridge goes on storing
// in RAW and sending commands, and controllers notice nothing. Then the streams are saved, each before the
// one that its consumer fills, and only then the databases' snapshots are taken:
// should a consumer have something in hand that is not acknowledged, its effect may
// be in the backup while its position is before it. That is the safe way round: it is
// delivered again after a restore, and every stage takes a message twice without
// counting it twice. The other way round, a position without its effect, would lose
// it. With the databases' snapshots taken the consumers go on, and the rows are
// read from the snapshots at leisure.
//
// What was acknowledged to a controller and is in RAW when RAW is saved is in the
// backup. What waits in the MQTT broker at that moment is not: it reaches RAW of the
// mesh that goes on.
func (c *backupCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	key, err := c.key()
	if err != nil {
		return err
	}
	if c.Compose != "" {
		return c.saveContainers(ctx, key)
	}
	m, err := openClient(ctx, state{dir: g.StateDir}, log)
	if err != nil {
		return err
	}
	defer m.close()
	w, err := backup.Create(c.To, key)
	if err != nil {
		return err
	}
	defer w.Discard()
	b := &saver{Writer: w, client: m, out: os.Stdout, manifest: backup.Manifest{Version: version}}
	if c.DryRun {
		return b.show(ctx)
	}
	signer, err := signer(ctx, m.state.files(), signingSecret) // first: it is saved with the other secrets
	if err != nil {
		return err
	}
	if err := b.save(ctx); err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	if err := w.Commit(&b.manifest, signer); err != nil {
		return err
	}
	sayWhatToKeep(os.Stdout, c.To, signer)
	return nil
}

// signingSecret is the secret that a mesh's backups are signed with. No server knows it,
// no service reads it, and it is in the backup itself, so that a restored mesh signs
// with the same key.
const signingSecret = "backup_signing_key"

// signer is that of the secret, which is made on first use.
func signer(ctx context.Context, files credential.Files, name string) (backup.Signer, error) {
	value, err := files.Lookup(ctx, name)
	if errors.Is(err, secret.ErrNotFound) {
		if err := files.Make(name); err != nil {
			return backup.Signer{}, err
		}
		value, err = files.Lookup(ctx, name)
	}
	if err != nil {
		return backup.Signer{}, err
	}
	return backup.NewSigner(value.Reveal())
}

func sayWhatToKeep(out io.Writer, file string, signer backup.Signer) {
	fmt.Fprintf(out, "saved to %s, signed by %s\n", file, signer.Public())
	fmt.Fprintf(out, "keep that and the backup's key elsewhere, and try the backup: f2mesh restore --dry-run --from %s --signer %s\n",
		shellQuote(file), signer.Public())
}

// saver saves one mesh.
type saver struct {
	*backup.Writer
	*client
	out      io.Writer
	manifest backup.Manifest
}

func (b *saver) save(ctx context.Context) error {
	b.manifest.Arguments = b.run.Issuer.arguments()
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
	for _, folder := range backupFolders() {
		if err := b.folder(folder); err != nil {
			return err
		}
	}
	return nil
}

// show says what save would save.
func (b *saver) show(ctx context.Context) error {
	names, err := b.streams(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(b.out, "would save the streams", strings.Join(names, ", "))
	for _, d := range localDatabases() {
		fmt.Fprintln(b.out, "would save the database", d.name)
	}
	fmt.Fprintln(b.out, "would save the folders", strings.Join(backupFolders(), ", "))
	return nil
}

// streams are in the order of saving: positions before what they lead to.
func (b *saver) streams(ctx context.Context) ([]string, error) {
	var names []string
	list := b.js.StreamNames(ctx)
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("listing the streams: %w", err)
	}
	first := []string{streamCommands, "RAW", "PARKED", streamLatest, "DECODED"}
	slices.SortFunc(names, func(x, y string) int { return rank(first, x) - rank(first, y) })
	return names, nil
}

// rank is the place of a name in the order, behind all for one that is not in it.
func rank(order []string, name string) int {
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
func (b *saver) still(ctx context.Context, names []string) (dumps []*snapshot, err error) {
	commands, trail := present(names, streamCommands), present(names, streamAudit)
	if err := b.held(ctx, commands, func() error { return b.each(ctx, commands) }); err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == streamCommands || name == streamAudit })
	err = b.held(ctx, append(slices.Clone(names), trail...), func() error {
		if err := b.each(ctx, names); err != nil {
			return err
		}
		b.manifest.Created = time.Now().UTC()
		for _, d := range localDatabases() {
			taken, err := b.snapshot(ctx, d.name)
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

func (b *saver) each(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := b.stream(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// held calls do while the streams' consumers stand still.
func (b *saver) held(ctx context.Context, names []string, do func() error) (err error) {
	began := time.Now()
	hold, err := stream.NewHold(ctx, b.js, names)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, hold.Release(ctx))
		fmt.Fprintf(b.out, "  consumers of %s stood still for %s\n", strings.Join(names, ", "), time.Since(began).Round(time.Millisecond))
	}()
	if err := do(); err != nil {
		return err
	}
	return hold.Check(ctx)
}

func (b *saver) stream(ctx context.Context, name string) error {
	var saved stream.Snapshot
	part, err := b.Part(streamPart(name), 0o600, func(w io.Writer) (err error) {
		saved, err = stream.Save(ctx, b.js, name, w)
		return err
	})
	if err != nil {
		return err
	}
	b.manifest.Streams = append(b.manifest.Streams, saved)
	fmt.Fprintf(b.out, "  stream %-12s %9d messages  %s\n", name, saved.Messages, size(part.Size))
	return nil
}

func streamPart(name string) string   { return "streams/" + name }
func databasePart(name string) string { return "databases/" + name }

func rowsPart(database string, t *postgres.Table) string {
	return databasePart(database) + "/" + t.String()
}

// snapshot is a database as of one moment, as long as its connection lasts.
type snapshot struct {
	database, id string
	conn         *pgx.Conn
	tx           pgx.Tx
}

func (b *saver) snapshot(ctx context.Context, database string) (*snapshot, error) {
	s := &snapshot{database: database}
	var err error
	if s.conn, err = connectPostgres(ctx, localDSN(b.run.Host, b.run.Ports.Postgres, b.run.CAFile, "", database), b.secrets, secretSuperuser); err != nil {
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

func (b *saver) dump(ctx context.Context, s *snapshot) error {
	saver, err := postgres.NewSaver(ctx, s.tx, schemaOf(s.database))
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
		part, err := b.Part(rowsPart(s.database, t), 0o600, func(w io.Writer) (err error) {
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
	b.manifest.Databases = append(b.manifest.Databases, census)
	fmt.Fprintf(b.out, "  database %-10s %9d rows      %s\n", s.database, total(&census), size(bytes))
	return nil
}

// folder saves the files of a folder. Each was written in one step, and is read whole.
// A link leads to what a restore could not put back: it is refused, not left out.
func (b *saver) folder(name string) error {
	var files int
	root := b.state.path(name)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err == nil && entry.IsDir():
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
	fmt.Fprintf(b.out, "  folder %-12s %9d files\n", name, files)
	return nil
}

func (b *saver) file(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path) //nolint:gosec // a file of the state directory
	if err != nil {
		return err
	}
	inside, err := filepath.Rel(b.state.dir, path)
	if err != nil {
		return err
	}
	_, err = b.Part(filePart+filepath.ToSlash(inside), info.Mode(), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	return err
}

// filePart is before the names of files' parts.
const filePart = "files/"

func total(c *postgres.Census) (rows int64) {
	for _, n := range c.Rows {
		rows += n
	}
	return rows
}

// size is a number of bytes as people read it.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
