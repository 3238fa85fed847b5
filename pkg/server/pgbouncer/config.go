package pgbouncer

import (
	"errors"
	"log/slog"
)

// User is the role that the pooler itself logs in as, to look others up. auth.sql
// makes it. Its alternate (pkg/secret/credential) is one like it.
const User = "f2mesh_pgbouncer"

// Config says what pooler to run. All but Host, Port and Settings is required.
type Config struct {
	// Dir holds what the pooler reads. Nothing in it outlives a start. As root it
	// may become a symbolic link, see account.Place.
	Dir string
	// Host is the address to listen on; "" means 127.0.0.1.
	Host string
	// Port is the TCP port; 0 takes a free one.
	Port int
	// ServerHost and ServerPort are where PostgreSQL has all the databases.
	ServerHost string
	ServerPort int
	// CertFile and KeyFile are the pooler's certificate; CAFile is what
	// PostgreSQL's must come from, and what clients trust. They are copied.
	CertFile, KeyFile, CAFile string
	// User is the constant User, "" for it, or its alternate; Password is its.
	User, Password string
	// Settings replace or follow those of pgbouncer/pgbouncer.ini, by name.
	Settings map[string]string
	// Log receives the pooler's log.
	Log *slog.Logger
}

func (c Config) validate() error {
	switch {
	case c.Dir == "" || c.Log == nil:
		return errors.New("folder and logger are required")
	case c.ServerHost == "" || c.ServerPort == 0:
		return errors.New("the address of PostgreSQL is required")
	case c.CertFile == "" || c.KeyFile == "" || c.CAFile == "":
		return errors.New("CA, certificate and key are required")
	case c.Password == "":
		return errors.New("a password is required")
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if c.User == "" {
		c.User = User
	}
	c.Log = c.Log.With("server", "pgbouncer")
	return c
}
