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

// Files is the directory of a mesh's secret files. It writes what secret.Files
// reads, with the modes that secret.Files insists on.
type Files string

// Lookup makes Files a secret.Source.
func (dir Files) Lookup(ctx context.Context, name string) (secret.Value, error) {
	v, err := secret.Files(dir).Lookup(ctx, name)
	if err != nil && !errors.Is(err, secret.ErrNotFound) {
		return v, fmt.Errorf("reading secret %s: %w", name, err)
	}
	return v, err
}

// Make puts a new password in place of a secret, or where there is none. The
// user that it is for is the first of the two.
func (dir Files) Make(name string) error { return dir.write(name, []byte(Generate()+"\n")) }

// WriteText makes a secret that is no password, such as mqtt_username.
func (dir Files) WriteText(name, text string) error { return dir.write(name, []byte(text+"\n")) }

// Put replaces a secret by a password and the user that it is for, together and in
// one step. When it returns the secret is on disk.
func (dir Files) Put(name, user, password string) error {
	data, err := json.Marshal(struct { //nolint:gosec // a secret file is what holds the password
		Username string `json:"username"`
		Password string `json:"password"`
	}{user, password})
	if err != nil {
		return fmt.Errorf("writing secret %s: %w", name, err)
	}
	return dir.write(name, append(data, '\n'))
}

func (dir Files) write(name string, data []byte) error {
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return fmt.Errorf("making the secrets directory: %w", err)
	}
	var self account.Account
	if err := self.WriteFile(filepath.Join(string(dir), name), data, 0o600); err != nil {
		return fmt.Errorf("writing secret %s: %w", name, err)
	}
	return dir.sync()
}

// sync makes the new name of a file outlast a power cut. Behind that the servers
// forget the old password.
func (dir Files) sync() error {
	d, err := os.Open(string(dir))
	if err != nil {
		return fmt.Errorf("saving the secrets directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("saving the secrets directory: %w", err)
	}
	return nil
}
