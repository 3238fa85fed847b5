package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/operate/volume"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
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
	signer  backup.Signer
}

// saveContainers saves the volumes, the secret files and .env of a mesh in containers.
// All of it stands still meanwhile, so that everything is as of one moment; then what
// ran goes on, whether the backup became one or not.
func (c *backupCommand) saveContainers(ctx context.Context, key backup.Key) error {
	if !signal.Ignored(syscall.SIGHUP) { // a terminal that is lost must not leave the mesh standing
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	w, err := backup.Create(c.To, key)
	if err != nil {
		return err
	}
	defer w.Discard()
	b := containerBackup{Writer: w, project: composeProject{c.Compose}, out: os.Stdout}
	running, err := b.project.services(ctx, "--status", "running", "--status", "restarting")
	if err != nil {
		return err
	}
	if !c.DryRun { // first: it is saved with the other secrets
		if b.signer, err = mesh.OpenSigner(ctx, credential.Files(filepath.Join(c.Compose, "secrets")), mesh.SigningSecret+containers.SecretSuffix); err != nil {
			return err
		}
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
	saved, started := b.still(ctx, running)
	if saved == nil {
		sayWhatToKeep(b.out, c.To, b.signer)
	} else {
		saved = fmt.Errorf("backing up: %w", saved)
	}
	if started != nil {
		started = fmt.Errorf("the mesh stands still: fix this, and let it go on with `./task compose:up`: %w", started)
	}
	return errors.Join(saved, started)
}

// still does what has to be done while nothing runs, and completes the archive: saved
// says whether it did, started whether the mesh goes on.
func (b *containerBackup) still(ctx context.Context, running []string) (saved, started error) {
	began := time.Now()
	m := &backup.Manifest{Version: version, Containers: true}
	saved = b.project.stop(ctx)
	if saved == nil {
		m.Created = time.Now().UTC()
		saved = b.volumes(ctx)
	}
	if saved == nil { // somebody may have started something meanwhile, another backup too
		saved = b.project.stopped(ctx)
	}
	started = b.project.start(context.WithoutCancel(ctx), running)
	fmt.Fprintf(b.out, "  the mesh stood still for %s\n", time.Since(began).Round(time.Second))
	if saved == nil {
		saved = b.Commit(m, b.signer)
	}
	return saved, started
}

func (b *containerBackup) volumes(ctx context.Context) error {
	part, err := b.Part(volumesPart, 0o600, func(w io.Writer) error {
		return volume.Check(w, func(w io.Writer) error { return b.project.volumes(ctx, nil, w, "save") })
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "  volumes             %s\n", mesh.Size(part.Size))
	return nil
}

// files saves what lies beside compose.yaml and is nowhere else.
func (b *containerBackup) files() error {
	for _, name := range containers.ContainerSecrets() {
		if _, err := os.Stat(filepath.Join(b.project.dir, "secrets", name+containers.SecretSuffix)); err != nil {
			return fmt.Errorf("looking for what compose.yaml takes (`./task secure-setup` makes it): %w", err)
		}
	}
	secrets, err := filepath.Glob(filepath.Join(b.project.dir, "secrets", "*"+containers.SecretSuffix))
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
	_, err = b.Part(mesh.FilePart+filepath.ToSlash(inside), info.Mode(), func(w io.Writer) error {
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
