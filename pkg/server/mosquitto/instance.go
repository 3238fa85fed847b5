package mosquitto

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// instance is the broker that runs on a folder now.
type instance struct {
	mark string // no other broker on the folder, earlier or later, has it
	host string // where its listeners are; "" where its configuration says
	pid  int    // 0 in another container
}

// running finds the broker that runs on a folder, started by whichever process in
// whichever container.
func running(folder string) (instance, bool) {
	if pid := runningPid(folder); pid != 0 {
		return instance{mark: strconv.Itoa(pid), pid: pid}, true
	}
	run := filepath.Join(folder, runFolder)
	if free(filepath.Join(run, aliveFile)) {
		return instance{}, false
	}
	s, err := readStatus(run)
	return instance{mark: s.id, host: s.host}, err == nil
}

// free reports whether nobody holds the file.
func free(path string) bool {
	file, err := os.Open(path) //nolint:gosec // of the broker's folder
	if err != nil {
		return true
	}
	defer func() { _ = file.Close() }()
	return syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil
}

// signal makes the broker read its files, and returns once it is told to.
func (i instance) signal(ctx context.Context, folder string) error {
	if i.pid != 0 {
		if err := syscall.Kill(i.pid, syscall.SIGHUP); err != nil {
			return fmt.Errorf("signalling the broker: %w", err)
		}
		return nil
	}
	token, err := requestReload(folder)
	if err != nil {
		return fmt.Errorf("asking for the broker's reload: %w", err)
	}
	for {
		s, err := readStatus(filepath.Join(folder, runFolder))
		switch {
		case err == nil && s.handled == token:
			return nil
		case err == nil && s.id != i.mark:
			return errors.New("the broker was started anew meanwhile")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the broker's reload: %w", ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// requestReload asks whoever attends the broker.
func requestReload(folder string) (token string, err error) {
	token = strconv.FormatInt(time.Now().UnixNano(), 10)
	var self account.Account
	return token, self.WriteFile(filepath.Join(folder, reloadFile), []byte(token+"\n"), 0o600)
}

// requested is the last token of requestReload, "" if there was none.
func requested(folder string) (string, error) {
	text, err := os.ReadFile(filepath.Join(folder, reloadFile)) //nolint:gosec // the broker's own folder
	return strings.TrimSpace(string(text)), err
}

// status is what an Attendant tells.
type status struct{ id, host, handled string }

func readStatus(run string) (s status, err error) {
	text, err := os.ReadFile(filepath.Join(run, statusFile)) //nolint:gosec // of the broker's folder
	if err != nil {
		return s, err
	}
	fields := strings.Split(strings.TrimSuffix(string(text), "\n"), " ")
	if len(fields) != 3 {
		return s, errors.New("malformed broker status file")
	}
	return status{id: fields[0], host: fields[1], handled: fields[2]}, nil
}
