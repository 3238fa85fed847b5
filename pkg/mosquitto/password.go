package mosquitto

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The broker derives the key anew for each connection, in the one thread that
// serves everybody; the passwords are at least 24 random bytes, which no number
// of rounds makes harder to guess.
const (
	rounds     = 1000
	saltLength = 12 // what mosquitto_passwd of 2.0.11 writes and expects
)

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
