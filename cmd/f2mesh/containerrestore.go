package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
)

// containerRestore makes a mesh in containers of a backup.
type containerRestore struct {
	*backup.Reader
	project composeProject
	files   map[string][]byte // of secrets/ and .env, those that are missing
	made    []string
	uid     int // whom the containers run as
	gid     int
}

// restoreContainers fills secrets/, .env and the volumes. If that fails what it made
// is gone again.
func (c *restoreCommand) restoreContainers(ctx context.Context, archive *backup.Reader) (err error) {
	r := containerRestore{Reader: archive, project: composeProject{c.Compose}, files: map[string][]byte{}}
	if err := r.check(ctx); err != nil {
		return err
	}
	if c.DryRun {
		fmt.Println("every part is as it was written; nothing was restored")
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("restoring: %w", err), r.remove())
		}
	}()
	if err := r.write(); err != nil {
		return err
	}
	if err := r.project.build(ctx); err != nil {
		return err
	}
	err = r.Part(volumesPart, func(in io.Reader) error { return r.project.volumes(ctx, in, os.Stderr, "load") })
	if err != nil {
		return err
	}
	fmt.Println("restored; start it with: ./task compose:up")
	return nil
}

// check refuses where there is a mesh already.
func (r *containerRestore) check(ctx context.Context) error {
	there, err := r.project.services(ctx, "--all")
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("there are containers already (%s): a mesh that is not needed any more goes, with its data, by `./task compose:down -- --volumes`", strings.Join(there, ", "))
	}
	for _, part := range r.Manifest.Parts {
		if name, ok := strings.CutPrefix(part.Name, mesh.FilePart); ok {
			if err := r.checkFile(part.Name, name); err != nil {
				return err
			}
		}
	}
	return r.owner()
}

// settings is a .env with those of compose.yaml. Docker Compose obeys others, such as
// COMPOSE_FILE, and whoever has the public key can write a backup.
var settings = regexp.MustCompile(`^(?:(?:#[^\r\n]*|(?:F2MESH_[A-Z]+(?:_[A-Z]+)*|ENABLE_MQTT_AUTH|USE_CONNECTION_POOLING|CACHE_TTL|RAW_HISTORY|DECODED_HISTORY|FLEET_ZONE|VAULT_ADDR|EXPOSE_DATABASE_PORTS|COMPOSE_PROFILES)=[^\r\n]*)?(?:\n|$))*$`) //nolint:gochecknoglobals // compiled once

// checkFile takes a file that is missing, passes over one that is the same, and
// refuses another.
func (r *containerRestore) checkFile(part, name string) error {
	if name != settingsFile && (path.Dir(name) != "secrets" || path.Clean(name) != name || !strings.HasSuffix(name, containers.SecretSuffix)) {
		return fmt.Errorf("the backup has a file %q, which no backup should have", name)
	}
	var text []byte
	err := r.Part(part, func(in io.Reader) (err error) { text, err = io.ReadAll(in); return err })
	if err != nil {
		return err
	}
	at := filepath.Join(r.project.dir, name)
	old, err := os.ReadFile(at) //nolint:gosec // beside compose.yaml
	switch {
	case errors.Is(err, fs.ErrNotExist) && name == settingsFile && !settings.Match(text):
		return fmt.Errorf("the backup's .env has settings that compose.yaml does not know; they could steer Docker on this machine. If all of it is yours, write it to %s and restore again:\n%s", at, text)
	case errors.Is(err, fs.ErrNotExist):
		r.files[name] = text
		return nil
	case err != nil:
		return fmt.Errorf("looking for secrets and settings: %w", err)
	case !bytes.Equal(old, text):
		return fmt.Errorf("%s is there, and is not what it is in the backup: move secrets/ and .env away", at)
	}
	return nil
}

// owner reads from .env whose the secret files are to be.
func (r *containerRestore) owner() (err error) {
	var text []byte
	err = r.Part(mesh.FilePart+settingsFile, func(in io.Reader) (err error) { text, err = io.ReadAll(in); return err })
	if err != nil {
		return err
	}
	for name, number := range map[string]*int{"F2MESH_UID": &r.uid, "F2MESH_GID": &r.gid} {
		value, ok := containers.LookUpSetting(string(text), name)
		if !ok {
			value = strconv.Itoa(containers.ContainerID)
		}
		if *number, err = strconv.Atoi(value); err != nil {
			return fmt.Errorf("reading %s of the backup's .env: %w", name, err)
		}
	}
	if r.uid < 1 || r.gid < 0 {
		return fmt.Errorf("the backup's .env has the containers run as %d:%d: they must not run as root", r.uid, r.gid)
	}
	if self := os.Geteuid(); self != 0 && self != r.uid {
		return fmt.Errorf("the containers run as user %d, whom the secret files have to belong to: restore as that user or as root", r.uid)
	}
	return nil
}

func (r *containerRestore) write() error {
	dir := filepath.Join(r.project.dir, "secrets")
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		r.made = append(r.made, dir)
		err = r.give(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making secrets/: %w", err)
	}
	for name, text := range r.files {
		at := filepath.Join(r.project.dir, name)
		file, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, r.Mode(mesh.FilePart+name)) //nolint:gosec // checkFile has seen the name
		if err != nil {
			return fmt.Errorf("writing secrets and settings: %w", err)
		}
		r.made = append(r.made, at)
		_, err = file.Write(text)
		if name != settingsFile {
			err = errors.Join(err, r.give(at))
		}
		if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
			return fmt.Errorf("writing secrets and settings: %w", err)
		}
	}
	return nil
}

func (r *containerRestore) give(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, r.uid, r.gid)
}

// remove takes away what write made.
func (r *containerRestore) remove() (problems error) {
	for i := range r.made {
		problems = errors.Join(problems, os.Remove(r.made[len(r.made)-1-i]))
	}
	return problems
}
