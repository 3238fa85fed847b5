package credential

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/account"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// randomBytes is how many a password is made of (design 8).
const randomBytes = 24

// Generate makes a password: 24 random bytes in base64.
func Generate() string {
	random := make([]byte, randomBytes)
	_, _ = rand.Read(random) // never fails, see crypto/rand
	return base64.StdEncoding.EncodeToString(random)
}

// Username is the secret that holds the bridge's user name at the broker, for
// where mqtt_password holds the password alone.
const Username = "mqtt_username"

// Names lists the secrets of a mesh.
func Names() []string {
	names := []string{Username}
	for _, c := range All() {
		names = append(names, c.Secret)
	}
	return names
}

// Files makes secret files in a directory; secret.Files reads them. Both have the
// modes that secret.Files insists on.
type Files string

// Ensure makes the secret if it is not there, and tells whether it did. What is
// there is only looked at: its modes must be right.
func (dir Files) Ensure(name string) (made bool, err error) {
	if err := dir.make(); err != nil {
		return false, err
	}
	_, err = os.Lstat(dir.path(name))
	if err == nil {
		_, err = secret.Files(dir).Lookup(context(), name)
		return false, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("looking for secret %s: %w", name, err)
	}
	return true, dir.Replace(name)
}
