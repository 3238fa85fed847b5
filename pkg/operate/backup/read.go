package backup

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"filippo.io/age"
)

// ErrKey says that the archive is for somebody else.
var ErrKey = errors.New("the key does not open this archive: it was encrypted to another recipient or passphrase, or its header was changed")

// ErrDamaged says that the archive is not as it was written.
var ErrDamaged = errors.New("the archive is truncated, damaged or was changed: take another one")

// Reader reads an archive.
type Reader struct {
	Manifest Manifest
	// Signer is the public key of who signed the manifest, "" for nobody.
	Signer string

	file *os.File
	zip  *zip.Reader
}

// Open opens an archive and reads its manifest. It trusts no part yet: see Verify.
// An error is, or wraps, ErrKey or ErrDamaged where it is about what the file holds.
func Open(path string, key Key) (*Reader, error) {
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("opening the archive: %w", err)
	}
	r := &Reader{file: file}
	if err := r.open(key); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return r, nil
}

func (r *Reader) open(key Key) error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	plain, size, err := age.DecryptReaderAt(r.file, info.Size(), key.identities...)
	if unmatched := new(age.NoIdentityMatchError); errors.As(err, &unmatched) {
		return ErrKey
	}
	if err != nil {
		return damaged(err)
	}
	if r.zip, err = zip.NewReader(plain, size); err != nil {
		return damaged(err)
	}
	text, err := fs.ReadFile(r.zip, manifestName)
	if err != nil {
		return damaged(err)
	}
	if err := json.Unmarshal(text, &r.Manifest); err != nil {
		return damaged(err)
	}
	if r.Manifest.Format != Format {
		return fmt.Errorf("it has format %d, and this program reads format %d: restore it with f2mesh %s", r.Manifest.Format, Format, r.Manifest.Version)
	}
	if r.Signer, err = signedBy(r.zip, text); err != nil {
		return damaged(err)
	}
	return nil
}

func damaged(err error) error { return fmt.Errorf("%w (%w)", ErrDamaged, err) }

// Verify reads every part and compares it with the manifest. progress, if not nil,
// is told the bytes that are done and how many there are.
func (r *Reader) Verify(ctx context.Context, progress func(done, total int64)) error {
	var done, total int64
	for _, part := range r.Manifest.Parts {
		total += part.Size
	}
	want := len(r.Manifest.Parts) + 2 // the manifest and its signature
	if len(r.zip.File) != want {
		return damaged(fmt.Errorf("%d entries instead of %d", len(r.zip.File), want))
	}
	for _, part := range r.Manifest.Parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.verify(part); err != nil {
			return fmt.Errorf("checking %s: %w", part.Name, err)
		}
		if done += part.Size; progress != nil {
			progress(done, total)
		}
	}
	return nil
}

func (r *Reader) verify(part ArchiveFile) error {
	content, err := r.zip.Open(part.Name)
	if err != nil {
		return damaged(err)
	}
	defer func() { _ = content.Close() }()
	sum := sha256.New()
	size, err := io.Copy(sum, content)
	if err != nil {
		return damaged(err)
	}
	if size != part.Size || hex.EncodeToString(sum.Sum(nil)) != part.SHA256 {
		return damaged(errors.New("another content than the manifest says"))
	}
	return nil
}

// Part reads a part.
func (r *Reader) Part(name string, read func(io.Reader) error) error {
	content, err := r.zip.Open(name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, damaged(err))
	}
	defer func() { _ = content.Close() }()
	if err := read(content); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

// Mode is the mode of the file that became a part, 600 if there is no such part.
func (r *Reader) Mode(name string) fs.FileMode {
	info, err := fs.Stat(r.zip, name)
	if err != nil {
		return 0o600
	}
	return info.Mode().Perm()
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }
