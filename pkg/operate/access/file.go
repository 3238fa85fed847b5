package access

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"sync"
)

// FileName is the name of the access file in a state directory.
const FileName = "access.yaml"

// Load reads an access file. A file that does not exist is Unrestricted.
func Load(path string) (*Policy, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if errors.Is(err, fs.ErrNotExist) {
		return Unrestricted(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the access file: %w", err)
	}
	p, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// Caller returns the user of the operating system who runs this program, or who uses sudo.
func Caller() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "operator"
}

// LivePolicy is the policy of an access file that may change. It is safe for concurrent use.
type LivePolicy struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	text    []byte
	policy  *Policy
	problem string // that was logged
}

// Open reads the file. If it is neither valid nor missing, there is an error, and the policy
// lets nobody do anything until it is valid.
func Open(path string, log *slog.Logger) (*LivePolicy, error) {
	p, err := Load(path)
	if err != nil {
		p = &Policy{}
	}
	return &LivePolicy{path: path, log: log, policy: p}, err
}

// Policy returns what the file says now. If it is not valid, or gone although there was one,
// the last valid policy stays, and an error is logged once.
func (f *LivePolicy) Policy() *Policy {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := os.ReadFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.policy.open:
		f.problem = ""
		return f.policy
	case err == nil && f.text != nil && bytes.Equal(data, f.text):
		return f.policy
	}
	var p *Policy
	if err == nil {
		p, err = Parse(data)
		f.text = data
	}
	if err != nil {
		if text := err.Error(); text != f.problem {
			f.problem = text
			f.log.Error("cannot use the access file, the last valid one applies", "file", f.path, "error", err)
		}
		return f.policy
	}
	f.policy, f.problem = p, ""
	f.log.Info("access file read", "file", f.path, "people", len(p.people))
	return p
}
