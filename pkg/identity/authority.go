// Package identity is the certificate authority of a mesh: it makes the
// certificates of its servers and of its controllers, and the lists of those that
// are revoked (design 9).
//
// A root signs issuing CAs and nothing else; the newest issuing CA signs servers
// and devices. Servers and devices hand out the issuing certificate with their
// own, and trust CAFile, which holds the root and all issuing CAs in use. Keys are
// ECDSA P-256 in PKCS #8, in files of mode 600; RSA keys are accepted, of a device
// as of the authority itself. The root's key is needed only for Rotate and belongs
// elsewhere: MoveRootKey takes it out of the folder. Every file is written under another
// name and then renamed, so that nobody reads half of one; two processes that open the
// same new authority at once end up with one.
//
// The package keeps no registry of what it issued, does not decide who is revoked, and
// does not write broker configuration.
package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	rootFile    = "root.crt"
	rootKeyName = "root.key"
	bundleFile  = "ca.crt"
)

const (
	rootLife   = 20 * 365 * 24 * time.Hour
	issuerLife = 10 * 365 * 24 * time.Hour
)

// Authority is a root and its issuing CAs in a folder. It is safe for concurrent
// use, also by several processes.
type Authority struct {
	dir    string
	loaded atomic.Pointer[loaded]
}

// loaded is what stood in the folder when it was last read. It is immutable.
type loaded struct {
	root    *x509.Certificate
	issuers []issuing // newest first, never empty
}

// issuing is an issuing CA.
type issuing struct {
	number      int // of its files
	certificate *x509.Certificate
	key         crypto.Signer
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
	if err := a.load(); err != nil {
		return nil, fmt.Errorf("opening certificate authority: %w", err)
	}
	return a, nil
}

// MoveRootKey moves the root's key from an authority's folder, which services read, to
// another, where Rotate can be pointed at it. Without a key there is nothing to do.
func MoveRootKey(dir, to string) (err error) {
	defer wrap(&err, "moving the root's key")
	from, target := filepath.Join(dir, rootKeyName), filepath.Join(to, rootKeyName)
	text, err := os.ReadFile(from) //nolint:gosec // of our own authority
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.MkdirAll(to, 0o700)
	}
	if err != nil {
		return err
	}
	there, err := os.ReadFile(target) //nolint:gosec // the same
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = writeFile(target, text, 0o600)
	case err == nil && !bytes.Equal(there, text):
		err = fmt.Errorf("%s is another one: move that away", target)
	}
	if err != nil {
		return err
	}
	return os.Remove(from)
}

// wrap adds to an error what was being done.
func wrap(err *error, doing string) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", doing, *err)
	}
}

// load reads the folder, which another process may have changed, and brings CAFile
// up to date if that one died before it did.
func (a *Authority) load() error {
	root, err := readCertificate(filepath.Join(a.dir, rootFile))
	if err != nil {
		return err
	}
	issuers, err := readIssuers(a.dir)
	if err != nil {
		return err
	}
	l := &loaded{root: root, issuers: issuers}
	bundle := l.authorities().Bundle()
	if now, err := os.ReadFile(a.CAFile()); err != nil || !bytes.Equal(now, bundle) {
		if err := writeFile(a.CAFile(), bundle, 0o644); err != nil {
			return err
		}
	}
	a.loaded.Store(l)
	return nil
}

// CAFile is the PEM file that clients and servers trust: the root and all issuing
// CAs in use.
func (a *Authority) CAFile() string { return filepath.Join(a.dir, bundleFile) }

// current is the issuing CA that signs now.
func (a *Authority) current() issuing { return a.loaded.Load().issuers[0] }

func (l *loaded) authorities() Authorities {
	all := Authorities{Roots: []*x509.Certificate{l.root}}
	for _, i := range l.issuers {
		all.Issuing = append(all.Issuing, i.certificate)
	}
	return all
}

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
	t := authorityTemplate("f2mesh root CA", rootLife, 1)
	root, rootKey, err := sign(t, t, nil)
	if err != nil {
		return err
	}
	if err := writePair(filepath.Join(dir, rootFile), filepath.Join(dir, rootKeyName), encodeCertificate(root), rootKey); err != nil {
		return err
	}
	issuer, err := addIssuer(dir, 1, root, rootKey)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, bundleFile), Authorities{[]*x509.Certificate{root}, []*x509.Certificate{issuer}}.Bundle(), 0o644)
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
