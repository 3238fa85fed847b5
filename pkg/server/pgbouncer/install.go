package pgbouncer

import (
	"errors"
	"fmt"
	"path/filepath"

	conf "github.com/f2mesh/f2mesh/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// ConfigFiles are what a stand-alone pooler reads besides its certificates: the shipped
// configuration, which looks for the databases on the hosts "postgres" and
// "timescaledb", and its own login. A pooler that runs takes them at SIGHUP or RELOAD.
type ConfigFiles struct {
	// Dir is the folder to write. The pooler sees it as /etc/pgbouncer.
	Dir string
	// User is the constant User or its alternate; Password is its.
	User, Password string
}

// Write brings the folder up to date.
func (f ConfigFiles) Write() error {
	if f.User == "" || f.Password == "" {
		return errors.New("writing pgbouncer's files: a user and a password are required")
	}
	var self account.Account
	for name, data := range map[string][]byte{
		confFile:     []byte(withUser(conf.Conf, f.User)),
		userlistFile: userlist(f.User, f.Password),
	} {
		if err := self.WriteFile(filepath.Join(f.Dir, name), data, 0o600); err != nil {
			return fmt.Errorf("writing pgbouncer's files: %w", err)
		}
	}
	return nil
}
