package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// issuerName is the name of the first issuing CA's files without their ending;
// the second one's has a "-2", and so on.
const issuerName = "issuer"

// ErrRootOffline is returned by Rotate where the root's key is missing.
var ErrRootOffline = errors.New("the root's key is missing")

// ErrInUse is returned by Retire for the issuing CA that signs.
var ErrInUse = errors.New("the issuing CA is in use")

// Rotate makes a new issuing CA, which signs from now on. The earlier ones stay
// trusted, and sign their revocation lists, until Retire. rootKeyFile is where the
// root's key is; "" is root.key in the authority's folder.
func (a *Authority) Rotate(_ context.Context, rootKeyFile string) (certificate *x509.Certificate, err error) {
	defer wrap(&err, "rotating the issuing CA")
	if rootKeyFile == "" {
		rootKeyFile = filepath.Join(a.dir, rootKeyName)
	}
	key, err := readKey(rootKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s does not exist; bring it from where it is kept offline for this one command", ErrRootOffline, rootKeyFile)
	}
	if err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		return nil, err
	}
	l := a.loaded.Load()
	if !matches(l.root, key) {
		return nil, fmt.Errorf("%s is not the key of this authority's root", rootKeyFile)
	}
	if certificate, err = addIssuer(a.dir, l.issuers[0].number+1, l.root, key); err != nil {
		return nil, err
	}
	return certificate, a.load()
}

// Retire removes an earlier issuing CA and its key. A server that asks for a revocation
// list no longer accepts what it signed.
func (a *Authority) Retire(_ context.Context, certificate *x509.Certificate) (err error) {
	defer wrap(&err, "retiring an issuing CA")
	if err := a.load(); err != nil {
		return err
	}
	for i, one := range a.loaded.Load().issuers {
		if !one.certificate.Equal(certificate) {
			continue
		}
		if i == 0 {
			return ErrInUse
		}
		certFile, keyFile := issuerFiles(a.dir, one.number)
		if err := errors.Join(os.Remove(certFile), os.Remove(keyFile)); err != nil {
			return err
		}
	}
	return a.load()
}

func issuerFiles(dir string, number int) (certFile, keyFile string) {
	name := issuerName
	if number > 1 {
		name += "-" + strconv.Itoa(number)
	}
	return filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
}

// addIssuer makes an issuing CA. It is one once its certificate is in place, which
// comes last.
func addIssuer(dir string, number int, root *x509.Certificate, rootKey crypto.Signer) (*x509.Certificate, error) {
	name := "f2mesh issuing CA"
	if number > 1 {
		name += " " + strconv.Itoa(number)
	}
	certificate, key, err := sign(authorityTemplate(name, issuerLife, 0), root, rootKey)
	if err != nil {
		return nil, err
	}
	certFile, keyFile := issuerFiles(dir, number)
	return certificate, writePair(certFile, keyFile, encodeCertificate(certificate), key)
}

// readIssuers reads the issuing CAs, newest first.
func readIssuers(dir string) ([]issuing, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []issuing
	for _, file := range files {
		number, ok := issuerNumber(file.Name())
		if !ok {
			continue
		}
		one, err := readIssuer(dir, number)
		if errors.Is(err, fs.ErrNotExist) {
			continue // retired by another process just now
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b issuing) int { return b.number - a.number })
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no issuing CA: %s.crt and %s.key are missing", dir, issuerName, issuerName)
	}
	return all, nil
}

func issuerNumber(file string) (int, bool) {
	name, ok := strings.CutSuffix(file, ".crt")
	if ok && name == issuerName {
		return 1, true
	}
	name, numbered := strings.CutPrefix(name, issuerName+"-")
	number, err := strconv.Atoi(name)
	return number, ok && numbered && err == nil && number > 1
}

func readIssuer(dir string, number int) (one issuing, err error) {
	certFile, keyFile := issuerFiles(dir, number)
	one.number = number
	if one.certificate, err = readCertificate(certFile); err != nil {
		return one, err
	}
	if one.key, err = readKey(keyFile); err != nil {
		return one, err
	}
	if !matches(one.certificate, one.key) {
		return one, fmt.Errorf("%s does not belong to %s", filepath.Base(keyFile), filepath.Base(certFile))
	}
	return one, nil
}
