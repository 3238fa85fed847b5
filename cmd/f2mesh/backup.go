package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
)

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
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	w, err := backup.Create(c.To, key)
	if err != nil {
		return err
	}
	defer w.Discard()
	b := &mesh.Saver{Writer: w, Mesh: m, Out: os.Stdout, Manifest: backup.Manifest{Version: version}}
	if c.DryRun {
		return b.Show(ctx)
	}
	signer, err := mesh.OpenSigner(ctx, m.State.SecretFiles(), mesh.SigningSecret) // first: it is saved with the other secrets
	if err != nil {
		return err
	}
	if err := b.Save(ctx); err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	if err := w.Commit(&b.Manifest, signer); err != nil {
		return err
	}
	sayWhatToKeep(os.Stdout, c.To, signer)
	return nil
}

func sayWhatToKeep(out io.Writer, file string, signer backup.Signer) {
	fmt.Fprintf(out, "saved to %s, signed by %s\n", file, signer.Public())
	fmt.Fprintf(out, "keep that and the backup's key elsewhere, and try the backup: f2mesh restore --dry-run --from %s --signer %s\n",
		mesh.ShellQuote(file), signer.Public())
}
