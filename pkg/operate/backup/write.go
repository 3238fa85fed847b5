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
	"time"

	"filippo.io/age"
)

const manifestName = "manifest.json"

// ArchiveWriter writes an archive. Commit or Discard ends it.
type ArchiveWriter struct {
	file  *File // nil: the archive goes to a stream
	age   io.WriteCloser
	zip   *zip.Writer
	parts []ArchiveFile
}

// Create begins an archive that will be at path, with mode 600, once it is complete.
// It refuses to replace a file.
func Create(path string, key Key) (*ArchiveWriter, error) {
	file, err := NewFile(path)
	if err != nil {
		return nil, err
	}
	w, err := Stream(file, key)
	if err != nil {
		file.Discard()
		return nil, err
	}
	w.file = file
	return w, nil
}

// Stream begins an archive that goes to out. After Commit it is complete.
func Stream(out io.Writer, key Key) (*ArchiveWriter, error) {
	if len(key.recipients) == 0 {
		return nil, errors.New("the archive needs a recipient or a passphrase: without one it could not be decrypted")
	}
	encrypted, err := age.Encrypt(out, key.recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypting the archive: %w", err)
	}
	return &ArchiveWriter{age: encrypted, zip: zip.NewWriter(encrypted)}, nil
}

// Part adds a file with what write writes, and answers what became of it. The
// parts' contents are expected to be compressed already.
func (w *ArchiveWriter) Part(name string, mode fs.FileMode, write func(io.Writer) error) (ArchiveFile, error) {
	header := &zip.FileHeader{Name: name, Method: zip.Store, Modified: time.Now().UTC()}
	header.SetMode(mode.Perm())
	entry, err := w.zip.CreateHeader(header)
	if err != nil {
		return ArchiveFile{}, fmt.Errorf("writing %s: %w", name, err)
	}
	sum, size := sha256.New(), new(counter)
	if err := write(io.MultiWriter(entry, sum, size)); err != nil {
		return ArchiveFile{}, fmt.Errorf("writing %s: %w", name, err)
	}
	part := ArchiveFile{Name: name, Size: int64(*size), SHA256: hex.EncodeToString(sum.Sum(nil))}
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
func (w *ArchiveWriter) Commit(m *Manifest, signer Signer) error {
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
	if err := errors.Join(w.zip.Close(), w.age.Close()); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	if w.file == nil {
		return nil
	}
	return w.file.Complete()
}

// Discard removes an archive that is not complete. After Commit it does nothing.
func (w *ArchiveWriter) Discard() {
	if w.file != nil {
		w.file.Discard()
	}
}
