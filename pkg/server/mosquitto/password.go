package mosquitto

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// The broker derives the key anew for each connection, in the one thread that
// serves everybody; the passwords are at least 24 random bytes, which no number
// of rounds makes harder to guess.
const (
	rounds     = 1000
	saltLength = 12 // what mosquitto_passwd of 2.0.11 writes and expects
)

const (
	passwordsFile = "passwords"
	peopleKeyFile = "people.key" // see People
)

// isService tells services, who log in at their own listener, from people.
func isService(user string) bool {
	return slices.ContainsFunc(credential.Of(credential.MQTT), func(c credential.Credential) bool {
		return c.Has(user) && len(c.Services) > 0
	})
}

// asKnown is what the broker's list has of each user's password: see People.
func asKnown(users map[string]string, key string) map[string]string {
	known := maps.Clone(users)
	for user, password := range users {
		if !isService(user) && password != "" {
			known[user] = password + key
		}
	}
	return known
}

// readPeopleKey answers what a broker's folder has been given by newPeopleKey.
func readPeopleKey(folder string) (string, error) {
	key, err := account.ReadFile(filepath.Join(folder, peopleKeyFile))
	if err == nil && len(key) < len(newPeopleKey()) {
		err = fmt.Errorf("%s is too short", peopleKeyFile)
	}
	return string(key), err
}

// newPeopleKey is what only the broker's folder knows.
func newPeopleKey() string { return rand.Text() + rand.Text() }

// passwordFile is what mosquitto_passwd would write: a line a user with a salted
// PBKDF2-SHA512 key ("$7$").
func passwordFile(users map[string]string) ([]byte, error) {
	var file bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(users)) {
		if strings.ContainsAny(name, ":\n\r\x00") {
			return nil, fmt.Errorf("writing password file: user name %q has a character that ends it", name)
		}
		hash, err := hashPassword(users[name])
		if err != nil {
			return nil, fmt.Errorf("writing password file: %w", err)
		}
		fmt.Fprintf(&file, "%s:%s\n", name, hash)
	}
	return file.Bytes(), nil
}

// SetPassword gives a user a password on the broker folder dir, and makes the broker
// that runs on it, started by whichever process, read it; with "" nobody can log
// in as the user any more. The broker does that within milliseconds, but not before
// SetPassword returns: LogIn tells. It ends the sessions of that user with another
// password, and no others.
func SetPassword(dir, user, password string) error {
	if err := writePassword(dir, user, password); err != nil {
		return fmt.Errorf("setting the password of %s: %w", user, err)
	}
	return Reload(dir)
}

// writePassword replaces one user's line and leaves the others as they are.
func writePassword(dir, user, password string) error {
	owner, folder, err := place(dir)
	if err != nil {
		return err
	}
	lock, err := lockPasswords(folder)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	path := filepath.Join(folder, passwordsFile)
	old, err := account.ReadFile(path)
	if err != nil {
		return err
	}
	var file bytes.Buffer
	for line := range strings.Lines(string(old)) {
		if !strings.HasPrefix(line, user+":") {
			file.WriteString(line)
		}
	}
	if password != "" {
		key, err := readPeopleKey(folder)
		if err != nil {
			return err
		}
		line, err := passwordFile(asKnown(map[string]string{user: password}, key))
		if err != nil {
			return err
		}
		file.Write(line)
	}
	return owner.WriteFile(path, file.Bytes(), 0o600)
}

// lockPasswords keeps two rotations from overwriting each other's line.
func lockPasswords(folder string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(folder, "passwords.lock"), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600) //nolint:gosec // our own folder
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

func hashPassword(password string) (string, error) {
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt) // never fails, see crypto/rand
	key, err := pbkdf2.Key(sha512.New, password, salt, rounds, sha512.Size)
	if err != nil {
		return "", fmt.Errorf("deriving key: %w", err)
	}
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("$7$%d$%s$%s", rounds, encode(salt), encode(key)), nil
}
