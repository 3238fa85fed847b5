package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
)

// restoringFile is in the volume `trust`, which all containers see, while a restore fills the volumes.
const restoringFile = "restoring"

var errRestoring = errors.New("a restore into these volumes was broken off, and they have only a part of the mesh: restore again, which begins anew, or remove them with `./task compose:down -- --volumes`")

// marked tells whether the file of the CA is beside the mark of a restore.
func marked(caFile string) bool {
	return mesh.Exists(filepath.Join(filepath.Dir(caFile), restoringFile))
}

// beginRestore fills empty volumes, or those that another restore left, with the files of a backup, and leaves a mark
// that they are not complete.
func (c *Init) beginRestore(in io.Reader) error {
	received, err := backup.Receive(in)
	if err != nil {
		return err
	}
	volumes, err := os.ReadDir(c.Volumes)
	if err != nil {
		return fmt.Errorf("looking for the volumes: %w", err)
	}
	began := mesh.Exists(c.volume("trust", restoringFile))
	for _, v := range volumes {
		if err := c.emptyVolume(v.Name(), began); err != nil {
			return err
		}
	}
	mark, err := os.OpenFile(c.volume("trust", restoringFile), os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // no secret
	if err != nil {
		return fmt.Errorf("beginning to restore: %w", err)
	}
	if err := errors.Join(mark.Sync(), mark.Close()); err != nil {
		return fmt.Errorf("beginning to restore: %w", err)
	}
	for received.Next() != "" {
		if err := c.restoreFile(received); err != nil {
			return err
		}
	}
	if !mesh.Exists(c.volume("state", "pki")) {
		return errors.New("the backup has no CA")
	}
	return nil
}

// endRestore takes the mark away, when what the servers stored is on disk.
func (c *Init) endRestore() error {
	syscall.Sync()
	if err := os.Remove(c.volume("trust", restoringFile)); err != nil {
		return fmt.Errorf("ending the restore: %w", err)
	}
	fmt.Println("the volumes are complete")
	return nil
}

// emptyVolume refuses what is in a volume, or removes it, but for the mark.
func (c *Init) emptyVolume(name string, remove bool) error {
	entries, err := os.ReadDir(c.volume(name))
	if err != nil {
		return fmt.Errorf("looking into volume %s: %w", name, err)
	}
	for _, e := range entries {
		switch {
		case e.Name() == "lost+found" || name == "trust" && e.Name() == restoringFile: // of a disk of its own
		case !remove:
			return fmt.Errorf("there is something in the volume %s: a mesh may be in it; back it up, and remove it with `./task compose:down -- --volumes`", name)
		default:
			if err := os.RemoveAll(c.volume(name, e.Name())); err != nil {
				return fmt.Errorf("emptying volume %s: %w", name, err)
			}
		}
	}
	return nil
}

// restoreFile writes the next file into the volume that has its folder.
func (c *Init) restoreFile(in *backup.Received) error {
	name, ok := strings.CutPrefix(in.Next(), mesh.FilePart)
	folder, rest, nested := strings.Cut(name, "/")
	volume := map[string]string{"pki": "state", mesh.RootFolder: mesh.RootFolder, "devices": "devices"}[folder]
	if !ok || !nested || volume == "" || !filepath.IsLocal(name) || path.Clean(name) != name {
		return fmt.Errorf("the backup has a file %q, which no backup should have", in.Next())
	}
	if volume == "state" {
		rest = name
	}
	root, err := os.OpenRoot(c.volume(volume))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := root.MkdirAll(path.Dir(rest), 0o700); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	mode := in.Mode(in.Next())
	return in.Part(in.Next(), func(r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return root.WriteFile(rest, data, mode)
	})
}

// Load fills the servers of a mesh that is being restored from standard input.
type Load struct {
	Migrations map[string]mesh.Migration `kong:"-"`
}

// Run refuses a mesh that is not being restored.
func (l *Load) Run(ctx context.Context, st mesh.State, log *slog.Logger) error {
	m, err := mesh.Open(ctx, st, log)
	if err != nil {
		return err
	}
	defer m.Close()
	if !marked(m.Description.CAFile) {
		return errors.New("no restore fills this mesh: use f2mesh restore --compose")
	}
	in, err := backup.Receive(os.Stdin)
	if err != nil {
		return err
	}
	loader := mesh.Loader{
		Description: m.Description, Secrets: m.Secrets, Manifest: &in.Manifest, Parts: in,
		Migrations: l.Migrations, Out: os.Stdout, Log: log,
	}
	if err := loader.Streams(ctx, m.JetStream); err != nil {
		return err
	}
	return loader.Databases(ctx)
}
