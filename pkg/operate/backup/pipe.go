package backup

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Send writes the manifest and the named parts, in this order, for Receive. They are not encrypted any more: w must be
// a pipe to a process that restores them.
func (r *Reader) Send(w io.Writer, names []string) error {
	out := tar.NewWriter(w)
	manifest, err := json.Marshal(r.Manifest)
	if err != nil {
		return fmt.Errorf("sending the manifest: %w", err)
	}
	if err := send(out, manifestName, 0o600, int64(len(manifest)), strings.NewReader(string(manifest))); err != nil {
		return err
	}
	for _, name := range names {
		i := slices.IndexFunc(r.Manifest.Parts, func(p ArchiveFile) bool { return p.Name == name })
		if i < 0 {
			return fmt.Errorf("sending %s: %w", name, damaged(fs.ErrNotExist))
		}
		err := r.Part(name, func(in io.Reader) error { return send(out, name, r.Mode(name), r.Manifest.Parts[i].Size, in) })
		if err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("sending the backup: %w", err)
	}
	return nil
}

func send(out *tar.Writer, name string, mode fs.FileMode, size int64, in io.Reader) error {
	err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Format: tar.FormatPAX, Name: name, Mode: int64(mode), Size: size})
	if err == nil {
		_, err = io.Copy(out, in)
	}
	if err != nil {
		return fmt.Errorf("sending %s: %w", name, err)
	}
	return nil
}

// Received is what Send sends, read once and in order.
type Received struct {
	Manifest Manifest

	in   *tar.Reader
	next *tar.Header // nil at the end
}

// Receive reads the manifest of what Send sends.
func Receive(r io.Reader) (*Received, error) {
	in := &Received{in: tar.NewReader(r)}
	var err error
	if in.next, err = in.in.Next(); err == nil && in.next.Name != manifestName {
		err = fmt.Errorf("%s comes first, not the manifest", in.next.Name)
	}
	if err == nil {
		err = json.NewDecoder(in.in).Decode(&in.Manifest)
	}
	if err == nil {
		err = in.advance()
	}
	if err != nil {
		return nil, fmt.Errorf("receiving the manifest: %w", err)
	}
	return in, nil
}

func (in *Received) advance() (err error) {
	in.next, err = in.in.Next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Next is the name of the part that comes next, "" at the end.
func (in *Received) Next() string {
	if in.next == nil {
		return ""
	}
	return in.next.Name
}

// Mode is the mode of the next part, if that is its name.
func (in *Received) Mode(name string) fs.FileMode {
	if in.Next() != name {
		return 0o600
	}
	return fs.FileMode(in.next.Mode).Perm() //nolint:gosec // nine bits of it
}

// Part reads the next part, which must be the one of that name.
func (in *Received) Part(name string, read func(io.Reader) error) error {
	if in.Next() != name {
		return fmt.Errorf("reading %s: the next part is %q", name, in.Next())
	}
	if err := read(in.in); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if err := in.advance(); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}
