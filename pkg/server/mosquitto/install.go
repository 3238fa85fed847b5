package mosquitto

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	conf "github.com/f2mesh/f2mesh/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// ConfigFiles is the configuration folder of a broker that somebody else starts, in a
// container: what Start would write, but for addresses and ports, which are those
// of the shipped file.
type ConfigFiles struct {
	// Dir is the folder that the broker sees as /mosquitto/config. Whoever owns
	// it must be whom the broker runs as.
	Dir string
	// CertFile and KeyFile are the broker's own certificate.
	CertFile, KeyFile string
	// CAs and CRLs are what the broker begins with, in PEM: a Gate keeps them later.
	CAs, CRLs []byte
	// Users are the names and passwords of those who may log in by password. A
	// line that is right already stays as it is: a changed one would end the
	// sessions of its user.
	Users map[string]string
	// Retained is that of Config.
	Retained bool
	// KeepUsers leaves a password file that is there as it is, but for people that a
	// version without People let in: their passwords have to be rotated once.
	KeepUsers bool
}

// Write brings the folder up to date and keeps the lists of controllers. A broker
// that runs on it takes the changes at the next Reload.
func (f ConfigFiles) Write() error {
	files, err := f.contents()
	if err != nil {
		return fmt.Errorf("writing the broker's files: %w", err)
	}
	var self account.Account
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := self.WriteFile(filepath.Join(f.Dir, name), files[name], 0o600); err != nil {
			return fmt.Errorf("writing the broker's files: %w", err)
		}
	}
	return nil
}

func (f ConfigFiles) contents() (map[string][]byte, error) {
	key, err := readPeopleKey(f.Dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		key, err = newPeopleKey(), nil
	}
	if err != nil {
		return nil, err
	}
	passwords, err := f.passwords(key, fresh)
	if err != nil {
		return nil, err
	}
	rights, err := os.ReadFile(filepath.Join(f.Dir, aclFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	text := conf.Conf
	if f.Retained {
		text = strings.Replace(text, "\nretain_available false\n", "\nretain_available true\n", 1)
	}
	files := map[string][]byte{confFile: []byte(text), passwordsFile: passwords, aclFile: renewACL(rights), peopleKeyFile: []byte(key)}
	for name, source := range map[string]string{serverCertFile: f.CertFile, serverKeyFile: f.KeyFile} {
		if files[name], err = os.ReadFile(source); err != nil { //nolint:gosec // the certificate that the caller names
			return nil, err
		}
	}
	for name, first := range map[string][]byte{caFile: f.CAs, deviceCRLFile: f.CRLs, reloadFile: nil} {
		if _, err := os.Stat(filepath.Join(f.Dir, name)); errors.Is(err, fs.ErrNotExist) {
			files[name] = first
		}
	}
	return files, nil
}

// passwords is the list of users. With a key that is new, people's lines that are to be
// kept are good for nothing, or for the services' listener: they go.
func (f ConfigFiles) passwords(key string, fresh bool) ([]byte, error) {
	known := asKnown(f.Users, key)
	made, err := passwordFile(known)
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(filepath.Join(f.Dir, passwordsFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return made, nil
	case err != nil || f.KeepUsers && !fresh:
		return old, err
	case f.KeepUsers:
		return servicesOnly(old), nil
	}
	return keepLines(made, old, known), nil
}

func servicesOnly(passwords []byte) []byte {
	var file bytes.Buffer
	for line := range strings.Lines(string(passwords)) {
		if name, _, _ := strings.Cut(line, ":"); isService(name) {
			file.WriteString(line)
		}
	}
	return file.Bytes()
}

// keepLines takes the lines of an older password file that are right still.
func keepLines(made, old []byte, users map[string]string) []byte {
	right := map[string]string{}
	for line := range strings.Lines(string(old)) {
		name, hash, _ := strings.Cut(strings.TrimSpace(line), ":")
		if password, ok := users[name]; ok && isHashOf(hash, password) {
			right[name] = line
		}
	}
	var file bytes.Buffer
	for line := range strings.Lines(string(made)) {
		name, _, _ := strings.Cut(line, ":")
		if kept, ok := right[name]; ok {
			line = kept
		}
		file.WriteString(line)
	}
	return file.Bytes()
}

// isHashOf tells whether hash is one of hashPassword's for the password.
func isHashOf(hash, password string) bool {
	parts := strings.Split(hash, "$") // "", "7", rounds, salt, key
	if len(parts) != 5 || parts[1] != "7" {
		return false
	}
	n, err := strconv.Atoi(parts[2])
	if err != nil || n < 1 || n > 100*rounds {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[3])
	if err != nil {
		return false
	}
	want, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil {
		return false
	}
	key, err := pbkdf2.Key(sha512.New, password, salt, n, sha512.Size)
	return err == nil && hmac.Equal(key, want)
}
