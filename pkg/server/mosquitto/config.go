package mosquitto

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Config says what broker to run. Dir, CertFile, KeyFile, Users and Log are
// required.
type Config struct {
	// Dir holds everything of the broker: rendered configuration, ACLs and
	// saved sessions. Start again on the same Dir continues with them. As root
	// it may become a symbolic link, see account.Place.
	Dir string
	// Host is the address of the listeners without TLS, those for services and for
	// people's tools, and Public that of the others; "" means 127.0.0.1, and that Public
	// is Host.
	Host, Public string
	// Port (services), TLSPort (controllers), PeoplePort and WebSocketPort (people) are
	// TCP ports; 0 takes a free one.
	Port, TLSPort, PeoplePort, WebSocketPort int
	// Origins are the web pages whose scripts may use WebSocketPort (People).
	Origins []string
	// CAFile is what controllers' certificates must come from, for a broker that
	// asks for no revocation list; it is copied at Start. "" stands for a broker
	// whose CAs, lists and ACL a Gate keeps: it must have put them in place before
	// Start.
	CAFile string
	// CertFile and KeyFile are the broker's own. They are copied at Start.
	CertFile, KeyFile string
	// Users are the names and passwords for Port, of services, and for PeoplePort and
	// WebSocketPort, of all others. What a name may do stands in mosquitto/internal.acl.
	Users map[string]string
	// Session is a client's that must miss nothing while it is away. Start opens it for
	// a moment. At the first start it is saved before anybody else can connect.
	Session Session
	// Autosave says when sessions and queues are written to disk. The zero
	// value leaves it to mosquitto/mosquitto.conf, which explains the choice.
	Autosave Autosave
	// Retained lets clients publish retained messages, which cuts them off otherwise:
	// mosquitto/mosquitto.conf has the reason.
	Retained bool
	// MemoryLimit bounds what the broker's clients can make it take, in bytes; 0 leaves it
	// to mosquitto/mosquitto.conf.
	MemoryLimit int64
	// Denied gets each line of the broker's log that tells of a publish which the
	// ACL denied; it must not block. nil asks for none: Mosquitto tells that in its
	// log for debugging alone, which has two lines or more a message and doubles its
	// CPU time a message (2.7 to 5.7 µs, measured), and never on a topic below $SYS.
	Denied func(line string)
	// Log receives the broker's log.
	Log *slog.Logger
}

// Session names a persistent session and the user whose it is. Of one that it has
// read from its file Mosquitto does not know the password, and takes its rights
// away at the next Reload: what is then published is acknowledged and dropped,
// until the client comes (measured with 2.0.11 and 2.0.22).
//
// Filter is what a new session subscribes to: a message that comes before the client's own
// first SUBSCRIBE is acknowledged and dropped otherwise.
type Session struct{ User, ClientID, Filter string }

func (s Session) client(password string) client {
	return client{id: s.ClientID, user: s.User, password: password, keep: true, filter: s.Filter}
}

// Autosave bounds what a crash of the broker may lose (design 5.8). At most one
// of the two may be set.
type Autosave struct {
	// Every saves each time this has passed, in whole seconds.
	Every time.Duration
	// Changes saves after this many messages, subscriptions and the like; 1 is
	// the safest and by far the slowest.
	Changes int
}

func (c Config) validate() error {
	switch {
	case c.Dir == "" || c.Log == nil:
		return errors.New("folder and logger are required")
	case c.CertFile == "" || c.KeyFile == "":
		return errors.New("certificate and key are required")
	case len(c.services()) == 0:
		return errors.New("at least one service's user is required")
	case c.Session.User != "" && c.Users[c.Session.User] == "", (c.Session.User == "") != (c.Session.ClientID == ""),
		(c.Session.User == "") != (c.Session.Filter == ""):
		return errors.New("a session takes one of the users, a client id and a filter")
	case c.Autosave.Every < 0 || c.Autosave.Every%time.Second != 0 || c.Autosave.Changes < 0:
		return errors.New("autosave takes whole seconds or a number of changes")
	case c.Autosave.Every > 0 && c.Autosave.Changes > 0:
		return errors.New("autosave takes either a time or a number of changes")
	}
	for name, password := range c.Users {
		if name == "" || password == "" {
			return errors.New("a user without name or password")
		}
	}
	return nil
}

// services are the users of the services' listener.
func (c Config) services() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.Users)), func(user string) bool { return !isService(user) })
}

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	c.Public = cmp.Or(c.Public, c.Host)
	c.Log = c.Log.With("server", "mosquitto")
	return c
}
