package natsserver

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/bcrypt"
)

const passwordsFile = "passwords.conf"

// passwordsConf holds a hash for every user of the configuration; one without a
// password gets one that nothing matches.
func passwordsConf(passwords map[string]string) ([]byte, error) {
	var file bytes.Buffer
	file.WriteString("# Made by f2mesh: bcrypt hashes of the users' passwords.\n")
	for _, user := range logins() {
		line, err := passwordLine(user, passwords[user])
		if err != nil {
			return nil, err
		}
		file.WriteString(line)
	}
	return file.Bytes(), nil
}

// passwordLine is a user's line; the password "" means that of a random one that
// nobody knows. The cost is bcrypt's lowest: the passwords are at least 24 random
// bytes, which no cost makes harder to guess, and each connection pays it.
func passwordLine(user, password string) (string, error) {
	if password == "" {
		password = rand.Text()
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return "", fmt.Errorf("hashing the password of %s: %w", user, err)
	}
	return fmt.Sprintf("%s%q\n", passwordKey(user), hash), nil
}

func passwordKey(user string) string { return strings.ToUpper(user) + "_PASSWORD: " }

// writePassword replaces one user's line of the server's passwords.conf and leaves
// the others as they are, to the byte: a reload drops whose line has changed.
func writePassword(dir, user, password string) error {
	if !slices.Contains(logins(), user) {
		return fmt.Errorf("nats-server.conf has no user %q", user)
	}
	lock, err := lockPasswords(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	path := filepath.Join(dir, passwordsFile)
	old, err := os.ReadFile(path) //nolint:gosec // the server's own folder
	if err != nil {
		return fmt.Errorf("reading %s: %w", passwordsFile, err)
	}
	line, err := passwordLine(user, password)
	if err != nil {
		return err
	}
	var file bytes.Buffer
	found := false
	lines := bufio.NewScanner(bytes.NewReader(old))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), passwordKey(user)) {
			file.WriteString(line)
			found = true
			continue
		}
		file.WriteString(lines.Text() + "\n")
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", passwordsFile, err)
	}
	if !found {
		file.WriteString(line)
	}
	return writeFile(path, file.Bytes())
}

// lockPasswords keeps two rotations from overwriting each other's line.
func lockPasswords(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "passwords.lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // our own folder
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", passwordsFile, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", passwordsFile, err), lock.Close())
	}
	return lock, nil
}
