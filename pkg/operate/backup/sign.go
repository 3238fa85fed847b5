package backup

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
)

const signatureName = "manifest.sig"

// Signer signs archives. It prints as nothing.
type Signer struct{ key ed25519.PrivateKey }

// Format keeps the key out of what prints it.
func (Signer) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(signer)")) }

// NewSigner makes the key of a random secret: the same of the same one.
func NewSigner(secret string) (Signer, error) {
	seed, err := hkdf.Key(sha256.New, []byte(secret), nil, "f2mesh backup signature", ed25519.SeedSize)
	if err != nil {
		return Signer{}, fmt.Errorf("making the key that signs backups: %w", err)
	}
	return Signer{ed25519.NewKeyFromSeed(seed)}, nil
}

// Public is what tells the signer's archives from others.
func (s Signer) Public() string {
	return base64.StdEncoding.EncodeToString(s.key.Public().(ed25519.PublicKey)) //nolint:forcetypeassert // see Public
}

// signature is the part that follows the manifest.
type signature struct {
	Signer    []byte `json:"signer"`
	Signature []byte `json:"signature"`
}

func signed(manifest []byte) []byte { return append([]byte("f2mesh backup manifest\n"), manifest...) }

func (s Signer) sign(manifest []byte) ([]byte, error) {
	return json.Marshal(signature{s.key.Public().(ed25519.PublicKey), ed25519.Sign(s.key, signed(manifest))}) //nolint:forcetypeassert // see Public
}

// signedBy is the public key of who signed the manifest. It is only what the archive
// says: anybody can sign.
func signedBy(archive fs.FS, manifest []byte) (string, error) {
	text, err := fs.ReadFile(archive, signatureName)
	if err != nil {
		return "", err
	}
	var s signature
	if err := json.Unmarshal(text, &s); err != nil {
		return "", err
	}
	if len(s.Signer) != ed25519.PublicKeySize || !ed25519.Verify(s.Signer, signed(manifest), s.Signature) {
		return "", fmt.Errorf("%s does not fit %s", signatureName, manifestName)
	}
	return base64.StdEncoding.EncodeToString(s.Signer), nil
}
