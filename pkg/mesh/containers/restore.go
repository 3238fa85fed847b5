package containers

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
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// Restore makes a mesh in containers of a backup.
type Restore struct {
	*backup.Reader
	Project Project

	files   map[string][]byte // of secrets/ and .env, those that are missing
	made    []string
	volumes []string // the parts that are files in volumes
	uid     int      // whom the containers run as
	gid     int
}

// Check refuses where there is a mesh already.
func (r *Restore) Check(ctx context.Context) error {
	there, err := r.Project.containers(ctx)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("there are containers already (%s): if a restore was broken off, `./task compose:down` and restore again; a mesh that is not needed any more goes, with its data, by `./task compose:down -- --volumes`", strings.Join(there, ", "))
	}
	return r.sort()
}

// sort checks the backup's files, and where each belongs.
func (r *Restore) sort() error {
	r.files = map[string][]byte{}
	for _, part := range r.Manifest.Parts {
		if name, ok := strings.CutPrefix(part.Name, mesh.FilePart); ok {
			if err := r.checkFile(part.Name, name); err != nil {
				return err
			}
		}
	}
	return r.owner()
}

// Run fills secrets/, .env and the volumes. If it fails, secrets/ and .env are as they were, and the volumes have a mark.
func (r *Restore) Run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("restoring: %w", err), r.remove())
		}
	}()
	if err := r.write(); err != nil {
		return err
	}
	if err := r.Project.build(ctx); err != nil {
		return err
	}
	if err := r.load(ctx, "init", []string{"init", "--restore"}, r.volumes); err != nil {
		return err
	}
	if err := r.fill(ctx); err != nil {
		return err
	}
	return r.load(ctx, "init", []string{"init", "--restored"}, nil)
}

// fill starts the servers that keep streams and rows, has them filled, and stops them.
func (r *Restore) fill(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, r.Project.run(context.WithoutCancel(ctx), "down")) }()
	if err := r.Project.run(ctx, "up", "--no-deps", "--detach", "--wait", "nats", "postgres", "timescaledb"); err != nil {
		return err
	}
	return r.load(ctx, "operator", []string{"load"}, mesh.LoadedParts(&r.Manifest))
}

// load hands parts to a container. They are not encrypted in the pipe, and on no disk.
func (r *Restore) load(ctx context.Context, service string, args, parts []string) error {
	return r.Project.within(ctx, service, args, func(w io.Writer) error { return r.Send(w, parts) }, os.Stdout, os.Stderr)
}

// settings is a .env with those of compose.yaml. Docker Compose obeys others, such as COMPOSE_FILE, and who has the
// public key can write a backup.
var settings = regexp.MustCompile(`^(?:(?:#[^\r\n]*|(?:F2MESH_[A-Z]+(?:_[A-Z]+)*|ALARM_RULES|ENABLE_MQTT_AUTH|USE_CONNECTION_POOLING|CACHE_TTL|RAW_HISTORY|DECODED_HISTORY|FLEET_ZONE|VAULT_ADDR|EXPOSE_DATABASE_PORTS|COMPOSE_PROFILES)=[^\r\n]*)?(?:\n|$))*$`) //nolint:gochecknoglobals // compiled once

// checkFile sorts the files: into volumes; beside compose.yaml, where one that is the same is passed over and another is
// refused; and none elsewhere.
func (r *Restore) checkFile(part, name string) error {
	folder, _, _ := strings.Cut(name, "/")
	switch {
	case !filepath.IsLocal(name) || path.Clean(name) != name:
	case folder == "pki" || folder == mesh.RootFolder || folder == "devices":
		r.volumes = append(r.volumes, part)
		return nil
	case name == mesh.SettingsFile, path.Dir(name) == "secrets" && strings.HasSuffix(name, credential.Suffix):
		return r.checkText(part, name)
	}
	return fmt.Errorf("the backup has a file %q, which no backup should have", name)
}

func (r *Restore) checkText(part, name string) error {
	text, err := r.text(part)
	if err != nil {
		return err
	}
	if text, err = r.forNewServers(name, text); err != nil {
		return err
	}
	at := filepath.Join(r.Project.Dir, name)
	old, err := os.ReadFile(at) //nolint:gosec // beside compose.yaml
	switch {
	case errors.Is(err, fs.ErrNotExist) && name == mesh.SettingsFile && !settings.Match(text):
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

// forNewServers is the text of a superuser's secret file for a new server, which knows the first of the two users alone
// and takes all of the file for its password. The password stays the same.
func (r *Restore) forNewServers(name string, text []byte) ([]byte, error) {
	secretName := strings.TrimSuffix(path.Base(name), credential.Suffix)
	if c, ok := credential.Find(secretName); !ok || c.User != postgres.Superuser {
		return text, nil
	}
	v, err := secret.Parse(strings.TrimRight(string(text), "\r\n"), "backup", "")
	if err != nil {
		return nil, fmt.Errorf("the backup's secret %s %w", secretName, err)
	}
	return []byte(v.Reveal() + "\n"), nil
}

func (r *Restore) text(part string) (text []byte, err error) {
	err = r.Part(part, func(in io.Reader) (err error) { text, err = io.ReadAll(in); return err })
	return text, err
}

// owner reads from .env whose the secret files are to be.
func (r *Restore) owner() (err error) {
	text, err := r.text(mesh.FilePart + mesh.SettingsFile)
	if err != nil {
		return err
	}
	for name, number := range map[string]*int{"F2MESH_UID": &r.uid, "F2MESH_GID": &r.gid} {
		value, ok := LookUpSetting(string(text), name)
		if !ok {
			value = strconv.Itoa(ContainerID)
		}
		if *number, err = strconv.Atoi(value); err != nil {
			return fmt.Errorf("reading %s of the backup's .env: %w", name, err)
		}
	}
	if r.uid < 1 || r.gid < 0 {
		return fmt.Errorf("the backup's .env has the containers run as %d:%d: they must not run as root", r.uid, r.gid)
	}
	if self := os.Geteuid(); self != 0 && self != r.uid {
		return fmt.Errorf("the containers run as user %d, who has to own the secret files: restore as that user or as root", r.uid)
	}
	return nil
}

func (r *Restore) write() error {
	dir := filepath.Join(r.Project.Dir, "secrets")
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		r.made = append(r.made, dir)
		err = r.give(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making secrets/: %w", err)
	}
	for name, text := range r.files {
		at := filepath.Join(r.Project.Dir, name)
		file, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, r.Mode(mesh.FilePart+name)) //nolint:gosec // checkFile has seen the name
		if err != nil {
			return fmt.Errorf("writing secrets and settings: %w", err)
		}
		r.made = append(r.made, at)
		_, err = file.Write(text)
		if name != mesh.SettingsFile {
			err = errors.Join(err, r.give(at))
		}
		if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
			return fmt.Errorf("writing secrets and settings: %w", err)
		}
	}
	return nil
}

func (r *Restore) give(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, r.uid, r.gid)
}

// remove takes away what write made.
func (r *Restore) remove() (problems error) {
	for i := range r.made {
		problems = errors.Join(problems, os.Remove(r.made[len(r.made)-1-i]))
	}
	return problems
}
