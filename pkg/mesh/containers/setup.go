package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// ContainerID is whom the containers run as where root sets them up: the user
// iotuser of the image.
const ContainerID = 10001

// Setup makes the secret files and the .env of compose.yaml.
type Setup struct {
	Compose string `help:"Directory of compose.yaml: create its secret files and .env instead." placeholder:"DIR" type:"existingdir" group:"Containers (compose.yaml)"`
	UID     int    `help:"User id of the containers. Default: yours, or 10001 for root." default:"-1" name:"uid" group:"Containers (compose.yaml)"`
	GID     int    `help:"Group id of the containers." default:"-1" name:"gid" group:"Containers (compose.yaml)"`
}

// Run makes the secret files and the settings that compose.yaml needs, as far as
// they are not there; or says what it would make.
func (c *Setup) Run(ctx context.Context, dryRun bool) error {
	if err := c.chooseOwner(); err != nil {
		return err
	}
	dir := SecretFolder(c.Compose)
	var missing []string
	for _, name := range ContainerSecrets() {
		_, err := dir.Lookup(ctx, name)
		switch {
		case errors.Is(err, secret.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
		case err != nil:
			return err
		}
	}
	outcome := "%s: %d secrets, %d of them would be new; the containers would run as %d:%d\n"
	if !dryRun {
		outcome = "%s: %d secrets, %d of them new; the containers run as %d:%d\n"
		if err := c.make(dir, missing); err != nil {
			return err
		}
	}
	fmt.Printf(outcome, dir.Dir, len(ContainerSecrets()), len(missing), c.UID, c.GID)
	return nil
}

// SecretFolder is the folder of the secret files beside compose.yaml.
func SecretFolder(compose string) credential.Folder {
	return credential.Folder{Dir: filepath.Join(compose, "secrets"), Compose: true}
}

// make writes the secrets that are missing, and the settings.
func (c *Setup) make(dir credential.Folder, missing []string) error {
	for _, name := range missing {
		if name == credential.Username {
			if err := dir.WriteText(name, "bridge"); err != nil {
				return err
			}
			continue
		}
		if err := dir.Make(name); err != nil {
			return err
		}
	}
	if err := c.give(dir.Dir); err != nil {
		return err
	}
	return c.settings()
}

// ContainerSecrets are the secrets that compose.yaml has.
func ContainerSecrets() []string {
	names := []string{credential.Username, credential.HealthAPI, credential.Metrics, credential.SecondSuperuser().Name, mesh.SecretGrafanaAdmin}
	for _, cr := range credential.All() {
		names = append(names, cr.Name)
	}
	slices.Sort(names)
	return names
}

// chooseOwner settles whom the containers run as: who owns the secret files, for
// nobody else may read them, and a secret of Compose is the file itself.
func (c *Setup) chooseOwner() error {
	self := os.Geteuid()
	if c.UID < 0 {
		c.UID = self
		if self == 0 {
			c.UID = ContainerID
		}
	}
	if c.GID < 0 {
		c.GID = c.UID
		if c.UID == self {
			c.GID = os.Getegid()
		}
	}
	switch {
	case c.UID == 0:
		return errors.New("the containers must not run as root: choose another --uid")
	case self != 0 && c.UID != self:
		return errors.New("only root can create secret files for another user: omit --uid, or run this as root")
	}
	return nil
}

// give hands the folder and its files to the containers' user.
func (c *Setup) give(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range append(ContainerSecrets(), "") {
		path := dir
		if name != "" {
			path = filepath.Join(dir, name+credential.Suffix)
		}
		if err := os.Lchown(path, c.UID, c.GID); err != nil {
			return fmt.Errorf("giving the secrets to the containers' user: %w", err)
		}
	}
	return nil
}

// settings adds to .env, which Compose reads, and refuses to change whom the
// containers run as: their volumes are that user's.
func (c *Setup) settings() error {
	path := filepath.Join(c.Compose, ".env")
	old, err := os.ReadFile(path) //nolint:gosec // beside compose.yaml
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading .env: %w", err)
	}
	file := bytes.NewBuffer(old)
	if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
		file.WriteByte('\n')
	}
	for _, setting := range []struct {
		name  string
		value int
	}{{"F2MESH_UID", c.UID}, {"F2MESH_GID", c.GID}} {
		switch value, ok := LookUpSetting(string(old), setting.name); {
		case !ok:
			fmt.Fprintf(file, "%s=%d\n", setting.name, setting.value)
		case value != strconv.Itoa(setting.value):
			return fmt.Errorf("%s has %s=%s already: name it by --uid and --gid, or remove the line and the volumes of that user", path, setting.name, value)
		}
	}
	if file.Len() == len(old) {
		return nil
	}
	var self account.Account
	return self.WriteFile(path, file.Bytes(), 0o644)
}

// LookUpSetting returns the value of a setting in the text of an .env file.
func LookUpSetting(file, name string) (string, bool) {
	for line := range strings.Lines(file) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.TrimSpace(key) == name {
			return strings.Trim(strings.TrimSpace(value), `"'`), true
		}
	}
	return "", false
}
