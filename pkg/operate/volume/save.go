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

// Measure says what Save would save of the volumes with these names below dir, and
// fails where Save would. They may be in use: what comes and goes meanwhile is no matter.
func Measure(ctx context.Context, dir string, names []string) ([]Volume, error) {
	var measured []Volume
	for _, name := range names {
		v := Volume{Name: name}
		if err := v.walk(ctx, dir, passing, try); err != nil {
			return nil, fmt.Errorf("measuring volume %s: %w", name, err)
		}
		measured = append(measured, v)
	}
	return measured, nil
}

// try opens what Save would read.
func try(path string, info fs.FileInfo) error {
	if _, err := link(path, info); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path) //nolint:gosec // of a volume
	if err != nil {
		return err
	}
	return file.Close()
}

// passing is nil for the error that something is gone.
func passing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
		if err := v.walk(ctx, dir, func(err error) error { return err }, s.entry); err != nil {
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

// walk counts what is in the volume, and calls each with it. An error about an entry
// ends it if judge does not say nil.
func (v *Volume) walk(ctx context.Context, dir string, judge func(error) error, each func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(filepath.Join(dir, v.Name), func(path string, entry fs.DirEntry, err error) error {
		if entry == nil || ctx.Err() != nil { // there is no such volume
			return errors.Join(err, ctx.Err())
		}
		if err != nil {
			return judge(err)
		}
		info, err := entry.Info()
		if err != nil {
			return judge(err)
		}
		if err := each(path, info); err != nil {
			return judge(err)
		}
		if info.Mode().IsRegular() {
			v.Files++
			v.Bytes += info.Size()
		}
		return nil
	})
}

// link is where a link leads, and an error for what cannot be saved.
func link(path string, info fs.FileInfo) (string, error) {
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
		return "", nil
	case fs.ModeSymlink:
		return os.Readlink(path)
	}
	return "", fmt.Errorf("%s is no file, folder or link", path)
}

func (s saver) entry(path string, info fs.FileInfo) error {
	to, err := link(path, info)
	if err != nil {
		return err
	}
	header, err := tar.FileInfoHeader(info, to)
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
