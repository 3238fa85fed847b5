// Package identity is the certificate authority of a mesh: it makes the
// certificates of its servers and of its controllers (design 9).
//
// A root signs one issuing CA and nothing else; the issuing CA signs servers
// and devices. Servers and devices hand out the issuing certificate with their
// own, and trust CAFile, which holds both. Keys are ECDSA P-256 in PKCS #8, in
// files of mode 600. Every file is written whole under another name and then
// put in place, so that a reader or a crash never meets half of one; two
// processes that open the same new authority at once end up with one.
//
// The package does not revoke, does not keep a registry of what it issued, and
// does not write broker configuration. An Authority is immutable and safe for
// concurrent use.
package identity

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	rootFile    = "root.crt"
	rootKeyFile = "root.key"
	issuerFile  = "issuer.crt"
	issuerKey   = "issuer.key"
	bundleFile  = "ca.crt"
)

const (
	rootLife   = 20 * 365 * 24 * time.Hour
	issuerLife = 10 * 365 * 24 * time.Hour
)

// Authority is a root and an issuing CA in a folder.
type Authority struct {
	dir    string
	issuer *x509.Certificate
	key    crypto.Signer
}

// OpenAuthority loads the authority in dir, or makes it there on first use.
func OpenAuthority(dir string) (*Authority, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening certificate authority: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, bundleFile)); errors.Is(err, fs.ErrNotExist) {
		if err := create(dir); err != nil {
			return nil, fmt.Errorf("making certificate authority: %w", err)
		}
	}
	a := &Authority{dir: dir}
	if a.issuer, err = readCertificate(filepath.Join(dir, issuerFile)); err != nil {
		return nil, fmt.Errorf("opening certificate authority: %w", err)
	}
	if a.key, err = readKey(filepath.Join(dir, issuerKey)); err != nil {
		return nil, fmt.Errorf("opening certificate authority: %w", err)
	}
	if !matches(a.issuer, a.key) {
		return nil, fmt.Errorf("opening certificate authority: %s does not belong to %s", issuerKey, issuerFile)
	}
	return a, nil
}

// CAFile is the PEM file that clients and servers trust: root and issuing CA.
func (a *Authority) CAFile() string { return filepath.Join(a.dir, bundleFile) }

// create makes the authority in a folder beside dir and puts it in place in one
// step. Losing the race against another process is as good as winning it.
func create(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }() // gone already once renamed
	if err := fill(temporary); err != nil {
		return err
	}
	err = os.Rename(temporary, dir) // replaces an empty folder, refuses a full one
	if _, there := os.Stat(filepath.Join(dir, bundleFile)); err != nil && there != nil {
		return err
	}
	return nil
}

func fill(dir string) error {
	root, rootKey, err := selfSigned()
	if err != nil {
		return err
	}
	issuer, key, err := sign(authorityTemplate("f2mesh issuing CA", issuerLife, 0), root, rootKey)
	if err != nil {
		return err
	}
	bundle := append(encodeCertificate(root), encodeCertificate(issuer)...)
	if err := writePair(filepath.Join(dir, rootFile), filepath.Join(dir, rootKeyFile), encodeCertificate(root), rootKey); err != nil {
		return err
	}
	if err := writePair(filepath.Join(dir, issuerFile), filepath.Join(dir, issuerKey), encodeCertificate(issuer), key); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, bundleFile), bundle, 0o644)
}

// authorityTemplate describes a CA below which there are at most depth others.
func authorityTemplate(name string, life time.Duration, depth int) *x509.Certificate {
	t := template(pkix.Name{CommonName: name, Organization: []string{"f2mesh"}}, life)
	t.IsCA = true
	t.BasicConstraintsValid = true
	t.MaxPathLen = depth
	t.MaxPathLenZero = depth == 0
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return t
}
