package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/operate/progress"
)

type restoreCommand struct {
	From           string `help:"Backup file to restore from." required:"" type:"existingfile"`
	Identity       string `help:"File with the age private key, as age-keygen writes it (mode 600)." type:"existingfile" xor:"key" required:""`
	PassphraseFile string `help:"File with the passphrase (mode 600)." type:"existingfile" xor:"key" required:""`
	Signer         string `help:"Signing key that must match, as backup printed it. Not needed with a passphrase." placeholder:"KEY" xor:"trust"`
	Trusted        bool   `help:"Restore a backup although the key that signed it is not known." xor:"trust"`
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
	bar := progress.Bytes("checking")
	err = archive.Verify(ctx, func(done, total int64) { bar.Set(uint64(done), uint64(total)) }) //nolint:gosec // not negative
	bar.Finish()
	if err != nil {
		return err
	}
	mesh.DescribeBackup(os.Stdout, archive)
	if err := c.trusts(archive); err != nil {
		return err
	}
	if c.Compose != "" && archive.Manifest.Containers {
		return c.intoContainers(ctx, archive)
	}
	if err := c.fits(&archive.Manifest); err != nil {
		return err
	}
	if c.DryRun {
		fmt.Println("every part is as it was written; nothing was restored")
		return nil
	}
	if err := local.Restore(ctx, archive, g.state(), migrations(), os.Stdout, log); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	fmt.Println("restored; start it with:", mesh.StartCommand(g.state(), &archive.Manifest))
	return nil
}

// intoContainers fills secrets/, .env and the volumes.
func (c *restoreCommand) intoContainers(ctx context.Context, archive *backup.Reader) error {
	r := containers.Restore{Reader: archive, Project: containers.Project{Dir: c.Compose}}
	if err := r.Check(ctx); err != nil {
		return err
	}
	if c.DryRun {
		fmt.Println("every part is as it was written; nothing was restored")
		return nil
	}
	if err := r.Run(ctx); err != nil {
		return err
	}
	fmt.Println("restored; start it with: ./task compose:up")
	return nil
}

type loadCommand struct{ containers.Load }

// Run fills the servers from standard input.
func (c *loadCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	c.Migrations = migrations()
	return c.Load.Run(ctx, g.state(), log)
}

// trusts refuses what somebody else may have written. A dry run runs nothing of it.
func (c *restoreCommand) trusts(archive *backup.Reader) error {
	switch {
	case c.Signer != "" && archive.Signer != c.Signer:
		return fmt.Errorf("the backup was not signed by %s: take another one, or find out who wrote it", c.Signer)
	case c.DryRun || c.Trusted:
		return nil
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
