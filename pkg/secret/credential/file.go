package credential

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// randomBytes is how many a password is made of (design 8).
const randomBytes = 24

// Generate makes a password: 24 random bytes in base64.
func Generate() string {
	random := make([]byte, randomBytes)
	_, _ = rand.Read(random) // never fails, see crypto/rand
	return base64.StdEncoding.EncodeToString(random)
}

// Suffix ends the names of the secret files beside compose.yaml.
const Suffix = ".txt"

// Folder is the directory of a mesh's secret files. It writes what secret.Files
// reads, with the modes that secret.Files insists on.
type Folder struct {
	Dir string
	// Compose is for the files beside compose.yaml: they have a Suffix, and containers have them mounted one by one, so
	// that a new secret goes into the file that is there.
	Compose bool
}

func (f Folder) file(name string) string {
	if f.Compose {
		return name + Suffix
	}
	return name
}

// Lookup makes Folder a secret.Source.
func (f Folder) Lookup(ctx context.Context, name string) (secret.Value, error) {
	v, err := secret.Files(f.Dir).Lookup(ctx, f.file(name))
	if err != nil && !errors.Is(err, secret.ErrNotFound) {
		return v, fmt.Errorf("reading secret %s: %w", name, err)
	}
	return v, err
}

// Make puts a new password in place of a secret, or where there is none. The
// user that it is for is the first of the two.
func (f Folder) Make(name string) error { return f.WriteText(name, Generate()) }

// WriteText makes a secret that is no password, such as mqtt_username.
func (f Folder) WriteText(name, text string) error { return f.replace(name, []byte(text+"\n")) }

// Put replaces a secret by a password and the user that it is for, together. When it returns the secret is on disk.
func (f Folder) Put(name, user, password string) error {
	data, err := json.Marshal(struct { //nolint:gosec // a secret file is what holds the password
		Username string `json:"username"`
		Password string `json:"password"`
	}{user, password})
	if err != nil {
		return fmt.Errorf("writing secret %s: %w", name, err)
	}
	if !f.Compose {
		return f.replace(name, append(data, '\n'))
	}
	if err := overwrite(filepath.Join(f.Dir, f.file(name)), data); err != nil {
		return fmt.Errorf("writing secret %s: %w", name, err)
	}
	return nil
}

// replace puts another file in place of one, in one step.
func (f Folder) replace(name string, data []byte) error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("making the secrets directory: %w", err)
	}
	var self account.Account
	if err := self.WriteFile(filepath.Join(f.Dir, f.file(name)), data, 0o600); err != nil {
		return fmt.Errorf("writing secret %s: %w", name, err)
	}
	return f.sync()
}

// sync makes the new name of a file outlast a power cut. Behind that the servers
// forget the old password.
func (f Folder) sync() error {
	if err := account.SyncPath(f.Dir); err != nil {
		return fmt.Errorf("saving the secrets directory: %w", err)
	}
	return nil
}
