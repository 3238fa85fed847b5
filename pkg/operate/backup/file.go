package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// File is a file of mode 600 that has its name only once it is complete. Complete or Discard ends it.
type File struct {
	*os.File
	path string
}

// NewFile begins a file that will be at path. It refuses to replace one.
func NewFile(path string) (*File, error) {
	if err := vacant(path); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 600
	if err != nil {
		return nil, fmt.Errorf("writing the archive: %w", err)
	}
	return &File{file, path}, nil
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

// Complete puts the file in place once it is on disk.
func (f *File) Complete() error {
	for _, end := range []func() error{f.Sync, f.Close} {
		if err := end(); err != nil {
			return fmt.Errorf("writing the archive: %w", err)
		}
	}
	if err := vacant(f.path); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	if err := account.SyncPath(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return nil
}

// Discard removes a file that is not complete. After Complete it does nothing.
func (f *File) Discard() {
	_ = f.Close()
	_ = os.Remove(f.Name()) // another name by now, if it is complete
}
