package backup

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"filippo.io/age"
)

// Key is what an archive is encrypted to, or opened with. It prints as nothing.
type Key struct {
	recipients []age.Recipient
	identities []age.Identity
}

// Format keeps the key out of what prints it.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(key)")) }

// Recipients is a key to write with, for the holders of the identities that belong
// to these public keys (age1…).
func Recipients(publicKeys []string) (Key, error) {
	recipients, err := age.ParseRecipients(strings.NewReader(strings.Join(publicKeys, "\n")))
	if err != nil {
		return Key{}, fmt.Errorf("a recipient is not a public key of age (age1…; age-keygen makes a pair): %w", err)
	}
	return Key{recipients: recipients}, nil
}

// Identities is a key to open with: a file as age-keygen writes it.
func Identities(file string) (Key, error) {
	text, err := private(file)
	if err != nil {
		return Key{}, err
	}
	identities, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		// age's own error may cite the line, which is a secret.
		return Key{}, fmt.Errorf("%s contains no age identity (AGE-SECRET-KEY-1…), as age-keygen writes it", file)
	}
	return Key{identities: identities}, nil
}

// minPassphrase keeps out what can be guessed in spite of scrypt.
const minPassphrase = 12

// Passphrase is a key to write and to open with: the file's text without the newline
// at its end.
func Passphrase(file string) (Key, error) {
	text, err := private(file)
	if err != nil {
		return Key{}, err
	}
	key, err := PassphraseText(text)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// PassphraseText is Passphrase of what such a file contains.
func PassphraseText(text string) (Key, error) {
	text = strings.TrimRight(text, "\r\n")
	if len(text) < minPassphrase {
		return Key{}, fmt.Errorf("the passphrase is shorter than %d characters: take a longer one", minPassphrase)
	}
	recipient, err := age.NewScryptRecipient(text)
	if err != nil {
		return Key{}, errors.New("the passphrase cannot be used")
	}
	identity, err := age.NewScryptIdentity(text)
	if err != nil {
		return Key{}, errors.New("the passphrase cannot be used")
	}
	return Key{recipients: []age.Recipient{recipient}, identities: []age.Identity{identity}}, nil
}

// private reads a file that nobody but its owner can read.
func private(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others: chmod 600 %s", file, file)
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	return string(text), nil
}
