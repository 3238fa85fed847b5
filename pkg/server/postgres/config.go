package postgres

import (
	"errors"
	"log/slog"
)

// Superuser is the name of the cluster's first role.
const Superuser = "postgres"

// Config says what cluster to run. Dir, CertFile, KeyFile, SuperuserPassword and
// Log are required.
type Config struct {
	// Dir holds everything of the cluster. Start again on the same Dir continues
	// with its data. As root it may become a symbolic link, see account.Place.
	Dir string
	// Host is the address to listen on; "" means 127.0.0.1.
	Host string
	// Port is the TCP port; 0 takes a free one.
	Port int
	// CertFile and KeyFile are the server's certificate; they are copied at
	// Start. CAFile is what clients trust: with it ConnString asks for
	// verify-full, without it only for encryption.
	CertFile, KeyFile, CAFile string
	// SuperuserPassword is the password of the role postgres when the cluster is
	// made. Later it is that of the role Superuser, "" for postgres, which may be its
	// alternate then.
	Superuser, SuperuserPassword string
	// Settings are put behind our own in postgresql.conf, by name.
	Settings map[string]string
	// Preload names extensions' libraries that the server loads at its start,
	// those that are installed for its version.
	Preload []string
	// Log receives the server's log.
	Log *slog.Logger
}

func (c Config) validate() error {
	switch {
	case c.Dir == "" || c.Log == nil:
		return errors.New("folder and logger are required")
	case c.CertFile == "" || c.KeyFile == "":
		return errors.New("certificate and key are required")
	case c.SuperuserPassword == "":
		return errors.New("a superuser password is required")
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if c.Superuser == "" {
		c.Superuser = Superuser
	}
	c.Log = c.Log.With("server", "postgresql")
	return c
}
