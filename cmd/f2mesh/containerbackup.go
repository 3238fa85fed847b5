package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/backup"
	"github.com/f2mesh/f2mesh/pkg/volume"
)

// volumesPart is the part of an archive that holds the containers' volumes.
const volumesPart = "volumes.tar.gz"

// settingsFile is beside compose.yaml, which reads it.
const settingsFile = ".env"

// containerBackup saves a mesh in containers.
type containerBackup struct {
	*backup.Writer
	project composeProject
	out     io.Writer
}

// saveContainers saves the volumes, the secret files and .env of a mesh in containers.
// All of it stands still meanwhile, so that everything is as of one moment; then what
// ran goes on, whether the backup became one or not.
func (c *backupCommand) saveContainers(ctx context.Context, key backup.Key) error {
	w, err := backup.Create(c.To, key)
	if err != nil {
		return err
	}
	defer w.Discard()
	b := containerBackup{w, composeProject{c.Compose}, os.Stdout}
	running, err := b.project.services(ctx, "--status", "running", "--status", "restarting")
	if err != nil {
		return err
	}
	if err := b.files(); err != nil {
		return err
	}
	if err := b.project.build(ctx); err != nil {
		return err
	}
	if c.DryRun {
		fmt.Fprintln(b.out, "would stop for the time of the backup:", strings.Join(running, " "))
		return b.project.volumes(ctx, nil, os.Stderr, "save", "--dry-run")
	}
	if err := b.still(ctx, running); err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	fmt.Fprintf(b.out, "saved to %s; keep its key elsewhere, and try the backup: f2mesh restore --dry-run --from %s\n", c.To, shellQuote(c.To))
	return nil
}

// still does what has to be done while nothing runs, and completes the archive.
func (b *containerBackup) still(ctx context.Context, running []string) error {
	began := time.Now()
	m := &backup.Manifest{Version: version, Containers: true}
	err := b.project.stop(ctx)
	if err == nil {
		m.Created = time.Now().UTC()
		err = b.volumes(ctx)
	}
	if err == nil { // somebody may have started something meanwhile, another backup too
		err = b.project.stopped(ctx)
	}
	started := b.project.start(context.WithoutCancel(ctx), running)
	fmt.Fprintf(b.out, "  the mesh stood still for %s\n", time.Since(began).Round(time.Second))
	if err == nil {
		err = b.Commit(m)
	}
	return errors.Join(err, started)
}

func (b *containerBackup) volumes(ctx context.Context) error {
	part, err := b.Part(volumesPart, 0o600, func(w io.Writer) error {
		return volume.Check(w, func(w io.Writer) error { return b.project.volumes(ctx, nil, w, "save") })
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "  volumes             %s\n", size(part.Size))
	return nil
}

// files saves what lies beside compose.yaml and is nowhere else.
func (b *containerBackup) files() error {
	for _, name := range containerSecrets() {
		if _, err := os.Stat(filepath.Join(b.project.dir, "secrets", name+secretSuffix)); err != nil {
			return fmt.Errorf("looking for what compose.yaml takes (`./task secure-setup` makes it): %w", err)
		}
	}
	secrets, err := filepath.Glob(filepath.Join(b.project.dir, "secrets", "*"+secretSuffix))
	if err != nil {
		return err
	}
	for _, path := range append(secrets, filepath.Join(b.project.dir, settingsFile)) {
		if err := b.file(path); err != nil {
			return fmt.Errorf("saving secrets/ and .env: %w", err)
		}
	}
	fmt.Fprintf(b.out, "  secrets, .env       %d files\n", len(secrets)+1)
	return nil
}

func (b *containerBackup) file(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	inside, err := filepath.Rel(b.project.dir, path)
	if err != nil {
		return err
	}
	_, err = b.Part(filePart+filepath.ToSlash(inside), info.Mode(), func(w io.Writer) error {
		file, err := os.Open(path) //nolint:gosec // beside compose.yaml
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		_, err = io.Copy(w, file)
		return err
	})
	return err
}
