package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
)

type backupCommand struct {
	To             string   `help:"File to write. It must not exist. -: standard output." required:"" type:"path"`
	Recipient      []string `help:"age public key (age1...) of someone who may restore. May be repeated." placeholder:"age1..." xor:"key" required:""`
	PassphraseFile string   `help:"Encrypt with the passphrase in this file (mode 600) instead of a key. -: standard input." type:"existingfile" xor:"key" required:""`
	Compose        string   `help:"Directory of compose.yaml: back up the mesh that runs in its containers." placeholder:"DIR" type:"existingdir" group:"Containers (compose.yaml)"`
	DryRun         bool     `help:"Check that a backup is possible and show what it would contain."`
}

// stdio is a file name that stands for standard input or output.
const stdio = "-"

func (c *backupCommand) key() (backup.Key, error) {
	switch c.PassphraseFile {
	case "":
		return backup.Recipients(c.Recipient)
	case stdio:
		text, err := io.ReadAll(io.LimitReader(os.Stdin, maxPassphrase))
		if err != nil {
			return backup.Key{}, fmt.Errorf("reading the passphrase: %w", err)
		}
		return backup.PassphraseText(string(text))
	}
	return backup.Passphrase(c.PassphraseFile)
}

// maxPassphrase bounds what is read of standard input, in bytes.
const maxPassphrase = 4096

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
		return c.fromContainers(ctx)
	}
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	b := &mesh.Saver{Mesh: m, Out: os.Stdout, Manifest: backup.Manifest{Version: version}}
	if c.To == stdio {
		b.Out = os.Stderr
	}
	if c.DryRun {
		return b.Show(ctx)
	}
	signer, err := mesh.OpenSigner(ctx, m.State.SecretFiles()) // first: it is saved with the other secrets
	if err != nil {
		return err
	}
	sum := sha256.New()
	if c.To == stdio {
		b.ArchiveWriter, err = backup.Stream(io.MultiWriter(os.Stdout, sum), key)
	} else {
		b.ArchiveWriter, err = backup.Create(c.To, key)
	}
	if err != nil {
		return err
	}
	defer b.Discard()
	if err := b.Save(ctx); err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	if err := b.Commit(&b.Manifest, signer); err != nil {
		return err
	}
	if c.To == stdio {
		fmt.Fprintln(os.Stderr, containers.Summary(sum.Sum(nil)))
		return nil
	}
	mesh.SayWhatToKeep(os.Stdout, c.To, signer)
	return nil
}

// fromContainers has a container back up its mesh.
func (c *backupCommand) fromContainers(ctx context.Context) error {
	b := containers.Backup{Project: containers.Project{Dir: c.Compose}, To: c.To, Recipients: c.Recipient, DryRun: c.DryRun}
	if c.PassphraseFile != "" {
		text, err := os.ReadFile(c.PassphraseFile)
		if err != nil {
			return fmt.Errorf("reading the passphrase: %w", err)
		}
		b.Passphrase = string(text)
	}
	if err := b.Run(ctx); err != nil || c.DryRun {
		return err
	}
	signer, err := mesh.OpenSigner(ctx, containers.SecretFolder(c.Compose))
	if err != nil {
		return err
	}
	mesh.SayWhatToKeep(os.Stdout, c.To, signer)
	return nil
}
