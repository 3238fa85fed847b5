package volume

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrOccupied says that a volume holds something already.
var ErrOccupied = errors.New("there is something in the volume")

// mark is in every volume while Load fills them.
const mark = ".incomplete"

// Incomplete reports whether a Load into the volumes below dir was killed: they hold
// some part of a mesh, which must not start.
func Incomplete(dir string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, "*", mark)) // it fails for bad patterns only
	return len(found) > 0
}

// Load fills the volumes with these names below dir, which must be empty, with what
// Save wrote of them, and answers once it is on disk. If it fails they are empty again.
func Load(ctx context.Context, dir string, names []string, r io.Reader) (loaded []Volume, err error) {
	if err := vacant(dir, names); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("loading the volumes: %w", err), empty(dir, names))
		}
	}()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name, mark), nil, 0o600); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	l := loader{root: root, names: names, loaded: map[string]*Volume{}}
	if err := l.all(ctx, r); err != nil {
		return nil, err
	}
	syscall.Sync()
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name, mark)); err != nil {
			return nil, err
		}
		if v, ok := l.loaded[name]; ok {
			loaded = append(loaded, *v)
		}
	}
	syscall.Sync()
	return loaded, nil
}

func vacant(dir string, names []string) error {
	for _, name := range names {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("looking into volume %s: %w", name, err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("%s: %w", name, ErrOccupied)
		}
	}
	return nil
}

// empty takes a volume's mark away last: it may be killed, too.
func empty(dir string, names []string) (problems error) {
	for _, name := range names {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		for _, e := range entries {
			if e.Name() != mark {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name, e.Name())))
			}
		}
		if err == nil {
			err = os.RemoveAll(filepath.Join(dir, name, mark))
		}
		problems = errors.Join(problems, err)
	}
	return problems
}

type loader struct {
	root    *os.Root
	names   []string
	loaded  map[string]*Volume
	folders []*tar.Header // they get their modes when they are full
}

func (l *loader) all(ctx context.Context, r io.Reader) error {
	compressed, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	archive := tar.NewReader(compressed)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if err := l.entry(header, archive); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, compressed); err != nil { //nolint:gosec // to its sum, which comes last; nothing is kept
		return err
	}
	for _, header := range slices.Backward(l.folders) {
		if err := l.finish(header); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) entry(header *tar.Header, content io.Reader) error {
	name, inside, _ := strings.Cut(header.Name, "/")
	if !slices.Contains(l.names, name) {
		return errors.New("compose.yaml has no such volume: use the version of the program that wrote the backup")
	}
	if !filepath.IsLocal(header.Name) || path.Clean(header.Name) != strings.TrimSuffix(header.Name, "/") || inside == mark {
		return errors.New("no name that a volume has")
	}
	v := l.loaded[name]
	if v == nil {
		v = &Volume{Name: name}
		l.loaded[name] = v
	}
	switch header.Typeflag {
	case tar.TypeDir:
		l.folders = append(l.folders, header)
		return l.root.MkdirAll(header.Name, 0o700)
	case tar.TypeSymlink:
		return l.root.Symlink(header.Linkname, header.Name)
	case tar.TypeReg:
		v.Files++
		v.Bytes += header.Size
		return l.file(header, content)
	}
	return errors.New("no file, folder or link")
}

func (l *loader) file(header *tar.Header, content io.Reader) error {
	file, err := l.root.OpenFile(header.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return l.finish(header)
}

func (l *loader) finish(header *tar.Header) error {
	mode := fs.FileMode(header.Mode).Perm() //nolint:gosec // Perm leaves nine bits
	return errors.Join(l.root.Chmod(header.Name, mode), l.root.Chtimes(header.Name, header.ModTime, header.ModTime))
}
