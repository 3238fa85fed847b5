package natsserver

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// Users of nats/nats-server.conf, each in an account of its own (Account). Each has an
// alternate, credential.Alternate.
const (
	Bridge    = "bridge"
	Decoder   = "decoder"
	Writer    = "writer"
	Registrar = "registrar"
	Keeper    = "keeper"
	Health    = "health"
	Alarm     = "alarm"
	Console   = "console"
	Operator  = "operator"
	Sys       = "sys"
)

// Users lists all users but the alternates, sorted by name.
func Users() []string {
	return []string{Alarm, Bridge, Console, Decoder, Health, Keeper, Operator, Registrar, Sys, Writer}
}

// logins lists the users with their alternates.
func logins() []string {
	var names []string
	for _, user := range Users() {
		names = append(names, user, credential.Alternate(user))
	}
	return names
}

// base is the user that name is, or is the alternate of.
func base(name string) string {
	for _, user := range Users() {
		if name == credential.Alternate(user) {
			return user
		}
	}
	return name
}

// AccountOf is where a user and its alternate are: the streams, too, in the operator's.
func AccountOf(user string) string {
	if base(user) == Operator {
		return "F2"
	}
	return strings.ToUpper(base(user))
}

// InboxPrefix is where a user and its alternate receive answers
// (nats.CustomInboxPrefix).
func InboxPrefix(user string) string { return "_INBOX_" + base(user) }

// Config says what server to run. Dir, CertFile, KeyFile, Passwords and Log are
// required.
type Config struct {
	// Dir holds the rendered configuration and the streams. Start again on the
	// same Dir continues with them.
	Dir string
	// Host is the address to listen on; "" means 127.0.0.1.
	Host string
	// Port is the clients' TCP port. 0 or less takes a free one.
	Port int
	// CertFile and KeyFile are the server's certificate. CAFile is what clients
	// trust; the server itself does not read it.
	CertFile, KeyFile, CAFile string
	// Passwords are the passwords of users and alternates, at most 72 bytes each. One
	// without cannot connect.
	Passwords map[string]string
	// Filling acknowledges what is not on disk yet, which is for a server that is
	// filled from a backup and thrown away if that breaks off. A sync for each message
	// takes longer on a slow or busy disk than the server itself waits for a restore
	// (5 s a piece). Stop brings everything to disk.
	Filling bool
	// Cluster is nil for a server that is in no cluster.
	Cluster *Member
	// Log receives the server's log.
	Log *slog.Logger
}

func (c Config) validate() error {
	switch {
	case c.Dir == "" || c.Log == nil:
		return errors.New("folder and logger are required")
	case c.CertFile == "" || c.KeyFile == "":
		return errors.New("certificate and key are required")
	case len(c.Passwords) == 0:
		return errors.New("at least one password is required")
	}
	for _, user := range slices.Sorted(maps.Keys(c.Passwords)) {
		if !slices.Contains(logins(), user) {
			return errors.New("a password for a user that nats-server.conf does not have: " + user)
		}
		if c.Passwords[user] == "" {
			return errors.New("an empty password for user " + user)
		}
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	c.Log = c.Log.With("server", "nats")
	return c
}
