package mosquitto

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// ConfigFiles by which containers that see the same broker folder, but not each other's
// processes, act on one broker.
const (
	reloadFile = "reload"      // in the folder: who has changed it asks for a reload
	runFolder  = "run"         // in the folder, for all but the broker's own container to read only
	aliveFile  = "broker.lock" // there: held while the broker runs
	statusFile = "broker"      // there: which broker it is, where, and what it has reloaded for
)

// followInterval is how soon an Attendant sees that a reload is asked for.
const followInterval = 50 * time.Millisecond

// Attendant stands by a broker in its container, on behalf of those who change its
// files in others.
type Attendant struct {
	dir, run string
	status   status
	lock     *os.File
}

// Attend makes the broker of the folder dir known, before it starts: others read
// run, mounted as dir/run, and reach the broker's listeners at host. Close ends it,
// as does the end of the process.
func Attend(dir, run, host string) (*Attendant, error) {
	a := &Attendant{dir: dir, run: run, status: status{id: rand.Text(), host: host}}
	var err error
	// What was asked for before the broker starts it reads at its start.
	if a.status.handled, err = requested(dir); err != nil {
		return nil, fmt.Errorf("attending the broker: %w", err)
	}
	if a.lock, err = os.OpenFile(filepath.Join(run, aliveFile), os.O_CREATE|os.O_RDWR, 0o600); err != nil { //nolint:gosec // our own folder
		return nil, fmt.Errorf("attending the broker: %w", err)
	}
	if err := a.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("attending the broker: %w", err), a.lock.Close())
	}
	return a, nil
}

func (a *Attendant) begin() error {
	if err := syscall.Flock(int(a.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another broker runs on this folder: %w", err)
	}
	return a.tell()
}

// tell writes the status.
func (a *Attendant) tell() error {
	var self account.Account
	text := fmt.Sprintf("%s %s %s\n", a.status.id, a.status.host, a.status.handled)
	return self.WriteFile(filepath.Join(a.run, statusFile), []byte(text), 0o600)
}

// Follow calls reload each time that somebody asks for it, until ctx ends. The
// broker must serve already: one that starts dies of the signal.
func (a *Attendant) Follow(ctx context.Context, reload func() error) error {
	ticker := time.NewTicker(followInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		token, err := requested(a.dir)
		if err != nil || token == a.status.handled {
			continue
		}
		if err := reload(); err != nil {
			return err
		}
		a.status.handled = token
		if err := a.tell(); err != nil {
			return err
		}
	}
}

// Close tells that the broker has ended.
func (a *Attendant) Close() error { return a.lock.Close() }

// OpenSession opens a client's persistent session for a moment, as Start does for
// Config.Session.
func OpenSession(ctx context.Context, address string, s Session, password string) error {
	return connect(ctx, address, s.client(password))
}
