package secret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dockerDir is where container runtimes mount secrets. They make it themselves,
// with mode 755.
const dockerDir = "/run/secrets"

// Files reads secrets from the files of a directory, by Docker's convention
// /run/secrets/<name>. A file holds the password alone, without its trailing
// newline, or the JSON object {"username":"…","password":"…"}.
type Files string

// Lookup refuses a file, or a directory, that others than its owner can reach,
// and names the command that fixes it.
func (dir Files) Lookup(_ context.Context, name string) (Value, error) {
	if name != filepath.Base(name) || name == "." || name == ".." {
		return Value{}, fmt.Errorf("secret name %q is not a file name", name)
	}
	f, err := os.Open(filepath.Join(string(dir), name)) //nolint:gosec // the directory is the operator's choice, the name is checked
	if errors.Is(err, fs.ErrNotExist) {
		return Value{}, ErrNotFound
	}
	if err != nil {
		return Value{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return Value{}, err
	}
	if err := errors.Join(dir.checkMode(), checkMode(f.Name(), info, 0o077, "600")); err != nil {
		return Value{}, err
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return Value{}, err
	}
	v, err := Parse(strings.TrimRight(string(data), "\r\n"), "file", info.ModTime().UTC().Format("2006-01-02T15:04:05.000Z"))
	if err != nil {
		return Value{}, fmt.Errorf("%s %w", f.Name(), err)
	}
	return v, nil
}

// checkMode refuses a directory in which others could see or replace secrets.
func (dir Files) checkMode() error {
	info, err := os.Stat(string(dir))
	if err != nil {
		return err
	}
	others := fs.FileMode(0o077)
	if filepath.Clean(string(dir)) == dockerDir {
		others = 0o022
	}
	return checkMode(string(dir), info, others, "700")
}

func checkMode(path string, info fs.FileInfo, others fs.FileMode, want string) error {
	if mode := info.Mode().Perm(); mode&others != 0 {
		return fmt.Errorf("%s has mode %04o, which lets others in: chmod %s %s", path, mode, want, path)
	}
	return nil
}

// Environment reads the variable named after the secret in upper case, with an
// optional prefix; it holds what a secret file would. It is the last resort: a
// process's variables can be read by whoever may trace it, and it hands them to
// its children.
type Environment string

// Lookup treats an empty variable as unset.
func (prefix Environment) Lookup(_ context.Context, name string) (Value, error) {
	variable := string(prefix) + strings.ToUpper(name)
	text := os.Getenv(variable)
	if text == "" {
		return Value{}, ErrNotFound
	}
	v, err := Parse(text, "environment", "")
	if err != nil {
		return Value{}, fmt.Errorf("%s %w", variable, err)
	}
	return v, nil
}

// Parse reads what a secret file contains: a password, or the JSON object of a user name and a password. Its
// errors say nothing of the text.
func Parse(text, source, version string) (Value, error) {
	if text == "" {
		return Value{}, errors.New("is empty")
	}
	if !strings.HasPrefix(text, "{") {
		return NewValue(text, source, version), nil
	}
	var credential struct{ Username, Password string }
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&credential); err != nil || decoder.More() || credential.Password == "" {
		return Value{}, errors.New(`begins with { and is not the JSON object {"username":"…","password":"…"}`)
	}
	return NewValue(credential.Password, source, version).WithUsername(credential.Username), nil
}
