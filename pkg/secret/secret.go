// Package secret resolves named secrets through a chain of sources (design 8)
// and keeps their values out of everything that prints. A Chain asks its sources
// in order: Vault (package vault), secret files, environment variables. A Store
// is what a service uses: it remembers the last good values, follows changes, and
// says where each value is from.
package secret

import (
	"fmt"
	"log/slog"
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

// same reports whether two values are one credential, wherever they are from.
func (v Value) same(w Value) bool {
	return v.username == w.username && v.Reveal() == w.Reveal()
}

// Source says which link of the chain answered, such as "file".
func (v Value) Source() string { return v.source }

// Version tells one value of a secret from the next: the version number in Vault,
// the file's change time, or "".
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
