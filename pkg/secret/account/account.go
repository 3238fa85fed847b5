// Package account decides which operating system account a server runs as.
//
// PostgreSQL refuses to run as root and Mosquitto should not. As root a server
// therefore runs as the account that its Debian package made; as an ordinary
// user it runs as that user and the package has nothing to do. It changes the
// owner of what it is given, never a folder above it. The package holds no
// state and starts nothing.
package account

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Account is whom a server runs as. The zero value is the user of this process.
// It is immutable.
type Account struct {
	// Name is the account's login name, "" for the user of this process.
	Name string

	uid, gid uint32
	groups   []uint32
}

// Lookup returns the account of that name when this process is root, else the
// zero account, since only root may start a program as another user.
func Lookup(name string) (*Account, error) {
	if os.Geteuid() != 0 {
		return &Account{}, nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("looking up account %s: %w", name, err)
	}
	a := &Account{Name: name}
	if a.uid, err = parseID(found.Uid); err != nil {
		return nil, fmt.Errorf("reading account %s: %w", name, err)
	}
	if a.gid, err = parseID(found.Gid); err != nil {
		return nil, fmt.Errorf("reading account %s: %w", name, err)
	}
	return a, a.addGroups(found)
}

// addGroups notes the supplementary groups, which a program that is started
// with a credential would lose otherwise.
func (a *Account) addGroups(found *user.User) error {
	ids, err := found.GroupIds()
	if err != nil {
		return fmt.Errorf("reading groups of account %s: %w", a.Name, err)
	}
	for _, text := range ids {
		id, err := parseID(text)
		if err != nil {
			return fmt.Errorf("reading groups of account %s: %w", a.Name, err)
		}
		a.groups = append(a.groups, id)
	}
	return nil
}

func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err
}

// Other reports whether the account differs from the user of this process.
func (a *Account) Other() bool { return a.Name != "" }

// Credential is what a command is started with, nil for the user of this process.
func (a *Account) Credential() *syscall.Credential {
	if !a.Other() {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}

// Own gives path to the account. It does nothing for the user of this process.
func (a *Account) Own(path string) error {
	if !a.Other() {
		return nil
	}
	if err := os.Lchown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("giving a file to account %s: %w", a.Name, err)
	}
	return nil
}

// WriteFile writes a file that the account owns, in one step: a reader sees the
// old content or the new one, and after a crash one of the two is there.
func (a *Account) WriteFile(path string, data []byte, mode os.FileMode) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // gone already once renamed
	if err := a.fill(temporary, data, mode); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}

func (a *Account) fill(f *os.File, data []byte, mode os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && a.Other() {
		err = f.Chown(int(a.uid), int(a.gid)) // not by name, where the account may have put another
	}
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	return err
}

// WriteNew makes a file below root that the account owns. Where the account has put
// something already, a link to a file of ours for one, it refuses.
func (a *Account) WriteNew(root *os.Root, name string, data []byte, mode os.FileMode) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := a.fill(f, data, mode); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// ReadFile reads a file of a folder that an account owns, and refuses a link: what
// is behind it may be for us alone, and the account have no right to it.
func ReadFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0) //nolint:gosec // the caller's path, and no link
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(f)
}
