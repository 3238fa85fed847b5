package rotation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// entry is what a run notes before it stores the new credential.
type entry struct {
	Secret  string    `json:"secret"`
	From    string    `json:"from_user"`
	To      string    `json:"to_user"`
	Version string    `json:"old_version"`
	Started time.Time `json:"started"`
}

// journal is the lock and the note of the rotations of one credential.
type journal struct {
	path  string
	lock  *os.File
	entry entry // zero if no run was broken off
}

func openJournal(dir, name string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	j := &journal{path: filepath.Join(dir, name+".json")}
	var err error
	j.lock, err = os.OpenFile(filepath.Join(dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // our own folder
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	if err := syscall.Flock(int(j.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		j.close()
		return nil, ErrRunning
	}
	if err := j.read(); err != nil {
		j.close()
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	return j, nil
}

func (j *journal) read() error {
	data, err := os.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(data, &j.entry)
}

func (j *journal) save(e entry) error {
	data, err := json.Marshal(e) //nolint:gosec // the name of a secret
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	var self account.Account
	if err := self.WriteFile(j.path, data, 0o600); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.entry = e
	return nil
}

func (j *journal) remove() error {
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the journal: %w", err)
	}
	return nil
}

func (j *journal) close() { _ = j.lock.Close() }
