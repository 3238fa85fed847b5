package rotation

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// sealPurpose keeps the key apart from any other that might come from a password.
const sealPurpose = "f2mesh rotation journal"

// seal makes the old password readable for whoever has the new one, which already
// opens more than the old one ever will.
func seal(old, password string) ([]byte, error) {
	box, err := newBox(password)
	if err != nil {
		return nil, fmt.Errorf("sealing the old password: %w", err)
	}
	return box.Seal(nil, nil, []byte(old), nil), nil //nolint:gosec // the box takes a random nonce itself
}

func unseal(sealed []byte, password string) (string, error) {
	box, err := newBox(password)
	if err != nil {
		return "", fmt.Errorf("unsealing the old password: %w", err)
	}
	old, err := box.Open(nil, nil, sealed, nil)
	if err != nil {
		return "", fmt.Errorf("unsealing the old password: %w", err)
	}
	return string(old), nil
}

// newBox puts a random nonce before what it seals.
func newBox(password string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(password), nil, sealPurpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
