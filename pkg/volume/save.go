// Package volume turns the volumes of a mesh in containers into one stream, and a
// stream into volumes.
//
// The stream is a compressed tar of folders, files and links, without owners: whoever
// loads it owns them. It is not encrypted, and so is for a pipe and not for a file. The
// volumes are folders beside each other that nobody uses meanwhile; the package does
// not find out whether that is so.
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
	"path/filepath"
)

// Volume says what is in a volume.
type Volume struct {
	Name  string
	Files int
	Bytes int64
}

// Measure says what Save would save of the volumes with these names below dir.
func Measure(ctx context.Context, dir string, names []string) ([]Volume, error) {
	return Save(ctx, dir, names, io.Discard)
}

// Save writes the volumes with these names below dir. What was written is complete
// only if it returns no error.
func Save(ctx context.Context, dir string, names []string, w io.Writer) ([]Volume, error) {
	compressed, err := gzip.NewWriterLevel(w, gzip.BestSpeed) // the mesh stands still meanwhile
	if err != nil {
		return nil, err
	}
	s := saver{tar.NewWriter(compressed), dir}
	var saved []Volume
	for _, name := range names {
		v := Volume{Name: name}
		if err := s.save(ctx, &v); err != nil {
			return nil, fmt.Errorf("saving volume %s: %w", name, err)
		}
		saved = append(saved, v)
	}
	if err := errors.Join(s.Close(), compressed.Close()); err != nil {
		return nil, fmt.Errorf("saving the volumes: %w", err)
	}
	return saved, nil
}

type saver struct {
	*tar.Writer
	dir string
}

func (s saver) save(ctx context.Context, v *Volume) error {
	return filepath.WalkDir(filepath.Join(s.dir, v.Name), func(path string, entry fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			v.Files++
			v.Bytes += info.Size()
		}
		return s.entry(path, info)
	})
}

func (s saver) entry(path string, info fs.FileInfo) error {
	var link string
	var err error
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is no file, folder or link", path)
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	inside, err := filepath.Rel(s.dir, path)
	if err != nil {
		return err
	}
	header.Name, header.Format = filepath.ToSlash(inside), tar.FormatPAX
	header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
	if err := s.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path) //nolint:gosec // of a volume
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	_, err = io.Copy(s, file)
	return err
}
