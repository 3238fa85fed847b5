package account

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// stateRoot holds the folders of servers whose own place their account cannot
// reach, such as a clone under /root.
const stateRoot = "/var/lib/f2mesh"

const (
	execOwner = 0o100
	execGroup = 0o010
	execOther = 0o001
)

// Place makes dir a folder of mode 700 that the account owns and can reach, and
// returns where it really is. That is dir itself when the account can traverse
// every folder above it. Else dir becomes a symbolic link to a new folder under
// /var/lib/f2mesh, so that a clone under /root works without opening /root. A
// second call returns the same place.
func Place(dir string, a *Account) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("placing a server's folder: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", fmt.Errorf("placing a server's folder: %w", err)
	}
	if target, err := filepath.EvalSymlinks(dir); err == nil && target != dir && a.reaches(target) {
		return target, nil
	}
	if !a.Other() || a.reaches(dir) {
		if err := a.makeOwned(dir); err != nil {
			return "", err
		}
		return filepath.EvalSymlinks(dir)
	}
	return a.placeElsewhere(dir)
}

func (a *Account) makeOwned(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("placing a server's folder: %w", err)
	}
	return a.Own(dir)
}

// placeElsewhere makes the folder under stateRoot and the link to it. The link
// is the only way to the folder: were its name derived from dir, a new clone at
// the path of a deleted one would meet that one's data.
func (a *Account) placeElsewhere(dir string) (string, error) {
	if err := os.MkdirAll(stateRoot, 0o711); err != nil { //nolint:gosec // accounts must get through, not look in
		return "", fmt.Errorf("placing a server's folder: %w", err)
	}
	target, err := os.MkdirTemp(stateRoot, filepath.Base(dir)+"-*")
	if err != nil {
		return "", fmt.Errorf("placing a server's folder: %w", err)
	}
	if err := a.link(dir, target); err != nil {
		_ = os.Remove(target)
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

func (a *Account) link(dir, target string) error {
	if !a.reaches(target) {
		return fmt.Errorf("placing a server's folder: account %s reaches neither %s nor %s", a.Name, dir, stateRoot)
	}
	if err := a.Own(target); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("placing a server's folder: %s is in the way and account %s cannot reach it: %w", dir, a.Name, err)
	}
	if err := os.Symlink(target, dir); err != nil {
		return fmt.Errorf("placing a server's folder: %w", err)
	}
	return nil
}

// Remove deletes the folder that Place made, wherever it is. It is not an error
// when there is none.
func Remove(dir string) error {
	if target, err := os.Readlink(dir); err == nil && strings.HasPrefix(target, stateRoot+"/") {
		if err := os.RemoveAll(target); err != nil {
			return fmt.Errorf("removing a server's folder: %w", err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing a server's folder: %w", err)
	}
	return nil
}

// reaches reports whether the account can traverse every folder above path.
func (a *Account) reaches(path string) bool {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if !a.traverses(dir) {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// traverses judges by the mode bits as the kernel does: the first class that
// matches decides. Access control lists are not looked at.
func (a *Account) traverses(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	mode := info.Mode().Perm()
	switch {
	case owner.Uid == a.uid:
		return mode&execOwner != 0
	case owner.Gid == a.gid:
		return mode&execGroup != 0
	default:
		return mode&execOther != 0
	}
}
