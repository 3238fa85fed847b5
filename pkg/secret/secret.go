// Package secret resolves named secrets through a chain of sources (design 8)
// and keeps their values out of everything that prints. The chain here is a
// secret file, then an environment variable.
package secret

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Redacted is what a Value prints as.
const Redacted = "[redacted]"

// Value is a secret with its origin. It prints as [redacted] in every format.
// Where a printer may not call its methods, in an unexported field, it shows an
// address: the text is behind a function, which no printer looks into.
type Value struct {
	text     func() string
	username string
	source   string
	version  string
}

// NewValue wraps text; source and version say where it is from and may be logged.
func NewValue(text, source, version string) Value {
	return Value{text: func() string { return text }, source: source, version: version}
}

// Reveal gives the secret itself, for the one call that needs it; "" of the zero
// Value.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return v.text()
}

// WithUsername returns the value with the name that it is the password of.
func (v Value) WithUsername(name string) Value {
	v.username = name
	return v
}

// Username is the name that the value is the password of, or fallback if the
// source holds the password alone. Rotation alternates between two names
// (design 8), so a password and its name come together or not at all.
func (v Value) Username(fallback string) string {
	if v.username == "" {
		return fallback
	}
	return v.username
}

// same reports whether two values are of one version.
func (v Value) same(w Value) bool {
	return v.source == w.source && v.version == w.version && v.username == w.username && v.Reveal() == w.Reveal()
}

// Source says which link of the chain answered, such as "file".
func (v Value) Source() string { return v.source }

// Version tells one value of a secret from the next: the file's change time, or "".
func (v Value) Version() string { return v.version }

// String, GoString, Format, MarshalText and LogValue never give the value away.
func (Value) String() string { return Redacted }

// GoString is %#v.
func (Value) GoString() string { return Redacted }

// Format covers every other verb.
func (Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// MarshalText covers JSON and other encoders.
func (Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue covers slog.
func (Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// ErrNotFound is what a source returns that does not hold the secret.
var ErrNotFound = errors.New("secret not found")

// Source is one link of the chain.
type Source interface {
	// Lookup returns ErrNotFound if the source does not hold name; any other
	// error means that the source could not tell.
	Lookup(ctx context.Context, name string) (Value, error)
}

// Chain asks its sources in order. It is safe for concurrent use if they are.
type Chain []Source

// Lookup returns the first answer. A source that fails, rather than not
// holding the secret, ends the search: falling through would be a silent
// downgrade.
func (c Chain) Lookup(ctx context.Context, name string) (Value, error) {
	v, _, err := c.lookup(ctx, name)
	return v, err
}

// lookup also tells which link answered.
func (c Chain) lookup(ctx context.Context, name string) (v Value, link int, err error) {
	for i, source := range c {
		v, err := source.Lookup(ctx, name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return Value{}, 0, fmt.Errorf("looking up secret %s: %w", name, err)
		}
		return v, i, nil
	}
	return Value{}, 0, fmt.Errorf("looking up secret %s: %w", name, ErrNotFound)
}

// Files reads secrets from the files of a directory, by Docker's convention
// /run/secrets/<name>. A trailing newline is not part of the secret.
type Files string

// Lookup refuses a file that others than its owner can read.
func (dir Files) Lookup(_ context.Context, name string) (Value, error) {
	if name != filepath.Base(name) {
		return Value{}, fmt.Errorf("secret name %q is not a file name", name)
	}
	path := filepath.Join(string(dir), name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Value{}, ErrNotFound
	}
	if err != nil {
		return Value{}, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return Value{}, fmt.Errorf("%s has mode %04o and can be read by others: chmod 600 %s", path, mode, path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the directory is the operator's choice, the name is checked
	if err != nil {
		return Value{}, err
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return Value{}, fmt.Errorf("%s is empty", path)
	}
	return NewValue(text, "file", info.ModTime().UTC().Format("2006-01-02T15:04:05.000Z")), nil
}

// Environment reads the variable named after the secret in upper case, with an
// optional prefix. It is the last resort: variables show in process listings.
type Environment string

// Lookup treats an empty variable as unset.
func (prefix Environment) Lookup(_ context.Context, name string) (Value, error) {
	text := os.Getenv(string(prefix) + strings.ToUpper(name))
	if text == "" {
		return Value{}, ErrNotFound
	}
	return NewValue(text, "environment", ""), nil
}
