package command

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// spelling is how a controller spells its topics. The zero value is the canonical spelling.
type spelling struct {
	device string // the second level, "f2-<mac>"; "" is canonical
	bare   bool   // connectors without J
}

// spell returns the MQTT topic of t as the controller spells it.
func (s spelling) spell(t topic.Topic) string {
	name := t.MQTT()
	root, rest, _ := strings.Cut(name, "/")
	device, rest, _ := strings.Cut(rest, "/")
	if s.device != "" {
		device = s.device
	}
	if number := strconv.Itoa(t.Connector); s.bare {
		rest = strings.Replace(rest, "/J"+number+"/", "/"+number+"/", 1)
	}
	return root + "/" + device + "/" + rest
}

// heardAs returns the spelling of a received topic. What the topic does not show is taken
// from before.
func heardAs(t topic.Topic, name string, before spelling) spelling {
	s := before
	_, rest, _ := strings.Cut(name, "/")
	device, rest, _ := strings.Cut(rest, "/")
	_, rest, _ = strings.Cut(rest, "/")
	if s.device = device; device == "f2-"+string(t.MAC) {
		s.device = ""
	}
	if 1 <= t.Connector && t.Connector <= 4 {
		s.bare = !strings.HasPrefix(rest, "J")
	}
	return s
}

// fleet remembers, for each controller that sent something: how it spells its topics, when
// it last sent a message, and whether it is connected. It is not larger than the fleet,
// since the broker lets a controller publish only under its own MAC. It is safe for
// concurrent use.
type fleet struct {
	mu     sync.Mutex
	known  map[topic.MAC]*controller
	listen bool // the broker's log is subscribed
}

type controller struct {
	spelling spelling
	spelled  bool      // spelling is known
	heard    time.Time // when the last message came
	presence presence
	changed  time.Time // when presence changed
}

// presence is whether a controller is connected, by the broker's log. It is unknown
// (unheard) after the connection to the broker was lost.
type presence uint8

const (
	unheard presence = iota
	present
	away
)

func newFleet() *fleet { return &fleet{known: map[topic.MAC]*controller{}} }

func (f *fleet) of(mac topic.MAC) *controller {
	c := f.known[mac]
	if c == nil {
		c = &controller{}
		f.known[mac] = c
	}
	return c
}

// hear records a message of a controller.
func (f *fleet) hear(t topic.Topic, name string, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.of(t.MAC)
	c.spelling, c.spelled, c.heard = heardAs(t, name, c.spelling), true, at
}

// remember records a spelling that was read from RAW, unless a newer one is known.
func (f *fleet) remember(mac topic.MAC, s spelling) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.of(mac); !c.spelled {
		c.spelling, c.spelled = s, true
	}
}

// spelling returns the controller's spelling, if it is known.
func (f *fleet) spelling(mac topic.MAC) (spelling, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.known[mac]
	if c == nil || !c.spelled {
		return spelling{}, false
	}
	return c.spelling, true
}

// notice records that a controller connected or disconnected.
func (f *fleet) notice(mac topic.MAC, p presence, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.of(mac); c.presence != p {
		c.presence, c.changed = p, at
	}
}

// listens records that the broker's log is subscribed.
func (f *fleet) listens() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listen = true
}

// forget makes every presence unknown: the broker's log is not received now.
func (f *fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listen = false
	for _, c := range f.known {
		c.presence = unheard
	}
}

// heardSince reports whether the controller sent a message at or after a time.
func (f *fleet) heardSince(mac topic.MAC, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.known[mac]
	return c != nil && !c.heard.Before(at)
}

// awaySince reports whether the controller has been disconnected since before a time, by
// the broker's log.
func (f *fleet) awaySince(mac topic.MAC, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.known[mac]
	return c != nil && c.presence == away && c.changed.Before(at)
}

// awayNow reports whether the controller is disconnected, by the broker's log, and since
// when. A controller that sent something since is connected: a line of the log was lost.
func (f *fleet) awayNow(mac topic.MAC) (since time.Time, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.known[mac]
	if c == nil || !f.listen || c.presence != away || c.heard.After(c.changed) {
		return time.Time{}, false
	}
	return c.changed, true
}

// Prefixes of lines of Mosquitto's log.
const (
	connectedPrefix = "New client connected from "
	clientPrefix    = "Client "
)

// read parses a line of the broker's log, which starts with the time. A controller's
// client id is its MAC with dashes.
func (f *fleet) read(line string, at time.Time) {
	if seconds, rest, ok := strings.Cut(line, ": "); ok && strings.Trim(seconds, "0123456789") == "" {
		line = rest
	}
	if rest, ok := strings.CutPrefix(line, connectedPrefix); ok {
		_, rest, _ = strings.Cut(rest, " as ")
		id, options, _ := strings.Cut(rest, " (")
		// The registrar uses a controller's client id to disconnect it, with another user.
		if mac, ok := deviceID(id); ok && strings.HasSuffix(options, ", u'"+id+"').") {
			f.notice(mac, present, at)
		}
		return
	}
	rest, ok := strings.CutPrefix(line, clientPrefix)
	if !ok {
		return
	}
	id, what, _ := strings.Cut(rest, " ")
	if strings.HasPrefix(what, "[") { // Mosquitto 2.1 adds the address
		_, what, _ = strings.Cut(what, "] ")
	}
	left := strings.HasPrefix(what, "disconnected") || strings.HasPrefix(what, "closed its connection") || strings.HasPrefix(what, "has exceeded timeout")
	// A client that was refused is not necessarily the controller.
	if mac, ok := deviceID(id); ok && left && !strings.Contains(what, "not authorised") {
		f.notice(mac, away, at)
	}
}

func deviceID(id string) (topic.MAC, bool) {
	mac, err := topic.ParseMAC(id)
	return mac, err == nil && id == mac.Dashed()
}
