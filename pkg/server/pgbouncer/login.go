package pgbouncer

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// SetLogin has the pooler whose Config.Dir this is log in as another from now on:
// User or its alternate, with that password. Another process may have started it;
// if it does not run, the next start counts. It does not wait.
func SetLogin(dir, user, password string) error {
	if err := setLogin(dir, user, password); err != nil {
		return fmt.Errorf("changing pgbouncer's login: %w", err)
	}
	return nil
}

func setLogin(dir, user, password string) error {
	owner, err := lookup()
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	conf := filepath.Join(dir, confFile)
	text, err := account.ReadFile(conf)
	if err != nil {
		return err
	}
	if err := owner.WriteFile(filepath.Join(dir, userlistFile), userlist(user, password), 0o600); err != nil {
		return err
	}
	if err := owner.WriteFile(conf, []byte(withUser(string(text), user)), 0o600); err != nil {
		return err
	}
	return reload(dir)
}

// reload signals the pooler that runs on the folder, if one does.
func reload(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, pidFile)) //nolint:gosec // the pooler's own folder
	if err != nil {
		return nil //nolint:nilerr // it takes the file away when it ends
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !process.Runs(pid, filepath.Join(dir, confFile)) {
		return nil //nolint:nilerr // left by one that was killed
	}
	return syscall.Kill(pid, syscall.SIGHUP)
}
