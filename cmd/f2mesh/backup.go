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
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/backup"
	"github.com/f2mesh/f2mesh/pkg/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// backupFolders are what of the state directory is in a backup beside streams and
// databases. Everything else there is made of these, or belongs to a run.
func backupFolders() []string { return []string{"pki", "devices", "secrets"} }

type backupCommand struct {
	To             string   `help:"File to write; it must not be there yet." required:"" type:"path"`
	Recipient      []string `help:"Public key of age (age1...) whose holder can restore; several may be named." placeholder:"age1..." xor:"key" required:""`
	PassphraseFile string   `help:"Encrypt with the passphrase in this file instead (mode 600)." type:"existingfile" xor:"key" required:""`
	Compose        string   `help:"Folder of compose.yaml: save the mesh in its containers, which stand still for it." placeholder:"DIR" type:"existingdir" group:"Containers (compose.yaml)"`
	DryRun         bool     `help:"Look whether it can be done, and show what would be saved."`
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
// in RAW, and controllers notice nothing. Then the streams are saved, each before the
// one that its consumer fills, and only then the databases' snapshots are taken:
// should a consumer have something in hand that is not acknowledged, its effect may
// be in the backup while its position is before it. That is the safe way round: it is
// delivered again after a restore, and every stage takes a message twice without
// counting it twice. The other way round, a position without its effect, would lose
// it. With the databases' snapshots taken the consumers go on, and pg_dump reads the
// snapshots at its leisure.
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
	nc, r, err := connectRunning(ctx, g, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("opening JetStream: %w", err)
	}
	st := state{dir: g.StateDir}
	secrets, err := st.keeper(log)
	if err != nil {
		return err
	}
	defer secrets.close()
	w, err := backup.Create(c.To, key)
	if err != nil {
		return err
	}
	defer w.Discard()
	b := &saver{Writer: w, state: st, run: r, js: js, secrets: secrets, out: os.Stdout}
	if c.DryRun {
		return b.show(ctx)
	}
	if err := b.save(ctx); err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	if err := w.Commit(&b.manifest); err != nil {
		return err
	}
	fmt.Printf("saved to %s; keep its key elsewhere, and try the backup: f2mesh restore --dry-run --from %s\n", c.To, shellQuote(c.To))
	return nil
}

// saver saves one mesh.
type saver struct {
	*backup.Writer
	state    state
	run      running
	js       jetstream.JetStream
	secrets  *keeper
	out      io.Writer
	manifest backup.Manifest
}

func (b *saver) save(ctx context.Context) error {
	b.manifest.Version = version
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
	first := []string{"RAW", latestStream, "DECODED"}
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

// still does what has to be done while nothing moves.
func (b *saver) still(ctx context.Context, names []string) (dumps []*snapshot, err error) {
	began := time.Now()
	hold, err := stream.NewHold(ctx, b.js, names)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, hold.Release(ctx))
		fmt.Fprintf(b.out, "  consumers stood still for %s\n", time.Since(began).Round(time.Millisecond))
	}()
	for _, name := range names {
		if err := b.stream(ctx, name); err != nil {
			return nil, err
		}
	}
	if err := hold.Check(ctx); err != nil {
		return nil, err
	}
	b.manifest.Created = time.Now().UTC()
	for _, d := range localDatabases() {
		taken, err := b.snapshot(ctx, d.name)
		if err != nil {
			return dumps, err
		}
		dumps = append(dumps, taken)
	}
	return dumps, nil
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
	census, err := postgres.TakeCensus(ctx, s.tx, s.database)
	if err != nil {
		return err
	}
	user, password, err := logIn(ctx, b.secrets, secretSuperuser)
	if err != nil {
		return err
	}
	target := &postgres.Target{
		Dir: b.state.path("postgres"), Host: b.run.Host, Port: b.run.Ports.Postgres, CAFile: b.run.CAFile,
		User: user, Password: password, Database: s.database,
	}
	part, err := b.Part(databasePart(s.database), 0o600, func(w io.Writer) error { return target.Dump(ctx, s.id, w) })
	if err != nil {
		return err
	}
	b.manifest.Databases = append(b.manifest.Databases, *census)
	fmt.Fprintf(b.out, "  database %-10s %9d rows      %s\n", s.database, total(census), size(part.Size))
	return nil
}

// folder saves the files of a folder. Each was written in one step, and is read whole.
func (b *saver) folder(name string) error {
	var files int
	root := b.state.path(name)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not there at all, or gone meanwhile
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		return b.file(path)
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
