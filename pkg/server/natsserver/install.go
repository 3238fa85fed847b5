package natsserver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	conf "github.com/f2mesh/f2mesh/nats"
)

// ConfigFiles is the configuration folder of a server that somebody else starts, in a
// container that listens on all its addresses, on the standard ports. Health and
// statistics are for the container itself.
type ConfigFiles struct {
	// Dir is the folder to write. The server sees it as At, and keeps its streams
	// in StoreDir.
	Dir, At, StoreDir string
	// CertFile and KeyFile are the server's certificate.
	CertFile, KeyFile string
	// Passwords are those of users and alternates. A line that is right already
	// stays as it is: a changed one would end the connections of its user.
	Passwords map[string]string
	// KeepPasswords leaves passwords.conf as it is if it is there.
	KeepPasswords bool
	// Filling is for a server that is filled from a backup, see Config. The caller brings what it stored to disk.
	Filling bool
}

// Write brings the folder up to date.
func (f ConfigFiles) Write() error {
	passwords, err := f.passwords()
	if err != nil {
		return fmt.Errorf("writing the NATS server's files: %w", err)
	}
	main := conf.ServerConf
	if f.Filling {
		main = bytes.Replace(main, []byte("sync_interval: always"), []byte("sync_interval: 2m"), 1)
	}
	files := map[string][]byte{
		"nats-server.conf": main, passwordsFile: passwords,
		"local.conf": renderLocal(soleName, "0.0.0.0", 4222, "127.0.0.1:8222",
			filepath.Join(f.At, "server.crt"), filepath.Join(f.At, "server.key"), f.StoreDir),
	}
	for name, source := range map[string]string{"server.crt": f.CertFile, "server.key": f.KeyFile} {
		if files[name], err = os.ReadFile(source); err != nil { //nolint:gosec // the certificate that the caller names
			return fmt.Errorf("writing the NATS server's files: %w", err)
		}
	}
	for name, data := range files {
		if err := writeFile(filepath.Join(f.Dir, name), data); err != nil {
			return err
		}
	}
	return nil
}

// passwords keeps the lines that are right still.
func (f ConfigFiles) passwords() ([]byte, error) {
	made, err := passwordsConf(f.Passwords)
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(filepath.Join(f.Dir, passwordsFile))
	if err != nil {
		return made, nil //nolint:nilerr // the first time
	}
	if f.KeepPasswords {
		return old, nil
	}
	var file bytes.Buffer
	for line := range strings.Lines(string(made)) {
		file.WriteString(f.keepLine(line, old))
	}
	return file.Bytes(), nil
}

// keepLine answers the old line in place of a user's new one, if it is for the same
// password. A user without one gets a new line that nothing matches.
func (f ConfigFiles) keepLine(made string, old []byte) string {
	key, _, isUser := strings.Cut(made, ": ")
	if !isUser {
		return made
	}
	for line := range strings.Lines(string(old)) {
		hash, ok := strings.CutPrefix(line, key+": ")
		if !ok {
			continue
		}
		text, err := strconv.Unquote(strings.TrimSpace(hash))
		if err == nil && f.isHashOf(text, key) {
			return line
		}
	}
	return made
}

// isHashOf tells whether hash lets in with the password that the user of key has.
func (f ConfigFiles) isHashOf(hash, key string) bool {
	for user, password := range f.Passwords {
		if passwordKey(user) == key+": " {
			return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
		}
	}
	return false
}
