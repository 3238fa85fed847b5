// Package backup reads and writes the archive of a mesh: one file that only the
// holder of a key can read, and that nobody can change unnoticed. Whoever has a public
// key can write another, so that it is signed: Reader.Signer has to be compared with
// what is known from elsewhere. Who has a passphrase needs no such comparison.
//
// The archive is a zip file, encrypted with age; manifest.json has the size and SHA-256
// of every other entry, and the last one, manifest.sig, its signature. Nothing is ever on disk in clear. The package
// knows nothing of what the parts mean. Writer and Reader are for one goroutine.
package backup

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
)

const manifestName = "manifest.json"

// Writer writes an archive. Commit or Discard ends it.
type Writer struct {
	path  string
	file  *os.File
	age   io.WriteCloser
	zip   *zip.Writer
	parts []Part
}

// Create begins an archive that will be at path, with mode 600, once it is complete.
// It refuses to replace a file.
func Create(path string, key Key) (*Writer, error) {
	if len(key.recipients) == 0 {
		return nil, errors.New("the archive needs a recipient or a passphrase: without one it could not be decrypted")
	}
	if err := vacant(path); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 600
	if err != nil {
		return nil, fmt.Errorf("writing the archive: %w", err)
	}
	w := &Writer{path: path, file: file}
	if w.age, err = age.Encrypt(file, key.recipients...); err != nil {
		w.Discard()
		return nil, fmt.Errorf("encrypting the archive: %w", err)
	}
	w.zip = zip.NewWriter(w.age)
	return w, nil
}

func vacant(path string) error {
	_, err := os.Lstat(path)
	if err == nil {
		return fmt.Errorf("%s exists already: name a new file", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return nil
}

// Part adds a file with what write writes, and answers what became of it. The
// parts' contents are expected to be compressed already.
func (w *Writer) Part(name string, mode fs.FileMode, write func(io.Writer) error) (Part, error) {
	header := &zip.FileHeader{Name: name, Method: zip.Store, Modified: time.Now().UTC()}
	header.SetMode(mode.Perm())
	entry, err := w.zip.CreateHeader(header)
	if err != nil {
		return Part{}, fmt.Errorf("writing %s: %w", name, err)
	}
	sum, size := sha256.New(), new(counter)
	if err := write(io.MultiWriter(entry, sum, size)); err != nil {
		return Part{}, fmt.Errorf("writing %s: %w", name, err)
	}
	part := Part{Name: name, Size: int64(*size), SHA256: hex.EncodeToString(sum.Sum(nil))}
	w.parts = append(w.parts, part)
	return part, nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// Commit ends the archive with the manifest, whose Format and Parts it fills in, and
// its signature, and puts it in place once it is on disk.
func (w *Writer) Commit(m *Manifest, signer Signer) error {
	defer w.Discard()
	m.Format, m.Parts = Format, w.parts
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	seal, err := signer.sign(text)
	if err != nil {
		return fmt.Errorf("signing the manifest: %w", err)
	}
	for _, last := range []struct {
		name string
		text []byte
	}{{manifestName, text}, {signatureName, seal}} {
		entry, err := w.zip.Create(last.name)
		if err == nil {
			_, err = entry.Write(last.text)
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", last.name, err)
		}
	}
	for _, end := range []func() error{w.zip.Close, w.age.Close, w.file.Sync, w.file.Close} {
		if err := end(); err != nil {
			return fmt.Errorf("writing the archive: %w", err)
		}
	}
	if err := vacant(w.path); err != nil {
		return err
	}
	if err := os.Rename(w.file.Name(), w.path); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return syncDir(filepath.Dir(w.path))
}

func syncDir(path string) error {
	dir, err := os.Open(path) //nolint:gosec // where the archive is
	if err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	defer func() { _ = dir.Close() }()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return nil
}

// Discard removes an archive that is not complete. After Commit it does nothing.
func (w *Writer) Discard() {
	_ = w.file.Close()
	_ = os.Remove(w.file.Name()) // another name by now, if it is complete
}
