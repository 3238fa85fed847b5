package command

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// spelling is how a controller writes its topics. The zero value is the canonical
// one.
type spelling struct {
	device string // the second level, "f2-<mac>"; "" is canonical
	bare   bool   // connectors without J
}

// spell is t's MQTT topic as the controller writes it.
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

// heardAs is the spelling of a topic as it came; before says what the topic does
// not tell.
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

// fleet is what is known of the controllers that were heard: how they spell their
// topics, when they last said something, and whether they are connected. It is as
// large as the fleet, since the broker lets a controller publish under its own MAC
// alone. It is safe for concurrent use.
type fleet struct {
	mu     sync.Mutex
	known  map[topic.MAC]*controller
	listen bool // the broker's log comes
}

type controller struct {
	spelling spelling
	spelled  bool      // spelling is known
	heard    time.Time // when the last message came
	presence presence
	changed  time.Time // presence
}

// presence is what the broker's log says, which is heard only while the connection
// to the broker lasts.
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

// hear notes a message of a controller.
func (f *fleet) hear(t topic.Topic, name string, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.of(t.MAC)
	c.spelling, c.spelled, c.heard = heardAs(t, name, c.spelling), true, at
}

// remember notes a spelling that was read from RAW, unless there is a newer one.
func (f *fleet) remember(mac topic.MAC, s spelling) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.of(mac); !c.spelled {
		c.spelling, c.spelled = s, true
	}
}

// spelling is how the controller was last heard, if it was.
func (f *fleet) spelling(mac topic.MAC) (spelling, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.known[mac]
	if c == nil || !c.spelled {
		return spelling{}, false
	}
	return c.spelling, true
}

// notice notes that a controller came or went.
func (f *fleet) notice(mac topic.MAC, p presence, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.of(mac); c.presence != p {
		c.presence, c.changed = p, at
	}
}

// listens notes that the broker's log comes from now on.
func (f *fleet) listens() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listen = true
}

// forget drops what the broker's log said: who comes and goes is not heard now.
func (f *fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listen = false
	for _, c := range f.known {
		c.presence = unheard
	}
}

// heardSince tells whether the controller said something at or after a moment.
func (f *fleet) heardSince(mac topic.MAC, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.known[mac]
	return c != nil && !c.heard.Before(at)
}

// awaySince tells whether the controller has been away from a moment until now, as
// the broker's log has it.
func (f *fleet) awaySince(mac topic.MAC, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.known[mac]
	return c != nil && c.presence == away && c.changed.Before(at)
}

// noticePrefixes of lines of Mosquitto's log.
const (
	connectedPrefix = "New client connected from "
	clientPrefix    = "Client "
)

// read takes a line of the broker's log, which comes on $SYS/broker/log/N with the
// time in front. A controller's client id is its MAC with dashes.
func (f *fleet) read(line string, at time.Time) {
	if seconds, rest, ok := strings.Cut(line, ": "); ok && strings.Trim(seconds, "0123456789") == "" {
		line = rest
	}
	if rest, ok := strings.CutPrefix(line, connectedPrefix); ok {
		_, rest, _ = strings.Cut(rest, " as ")
		id, options, _ := strings.Cut(rest, " (")
		// The registrar takes the client id of a controller that it throws out.
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
	if strings.HasPrefix(what, "[") { // 2.1 adds the address
		_, what, _ = strings.Cut(what, "] ")
	}
	left := strings.HasPrefix(what, "disconnected") || strings.HasPrefix(what, "closed its connection") || strings.HasPrefix(what, "has exceeded timeout")
	// Who was not let in need not be the controller.
	if mac, ok := deviceID(id); ok && left && !strings.Contains(what, "not authorised") {
		f.notice(mac, away, at)
	}
}

func deviceID(id string) (topic.MAC, bool) {
	mac, err := topic.ParseMAC(id)
	return mac, err == nil && id == mac.Dashed()
}
