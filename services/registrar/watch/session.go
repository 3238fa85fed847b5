package watch

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Reasons for turning somebody away, as in the metrics.
const (
	reasonPassword = "password"
	reasonTLS      = "tls"
	reasonProtocol = "protocol"
)

// maxTracked bounds each list: a flood of connections must not become memory.
const maxTracked = 10000

// maxPresent bounds the list of devices that are connected. Each has a certificate
// of ours, so nobody else makes it grow.
const maxPresent = 200_000

// finding is what an observation amounts to.
type finding struct {
	event                 string // for the metrics, one of a fixed set
	kind, subject, detail string // of the alarm; kind "" is none
}

// sessions follows who comes and goes at the broker. It has no clock of its own
// and is not safe for concurrent use.
type sessions struct {
	cfg *Config

	taken     map[topic.MAC]bool      // ended for another connection that is not yet announced
	takeovers map[topic.MAC][]arrival // within the window
	foreign   map[topic.MAC]time.Time // when a device last published outside its own topics
	present   map[topic.MAC]time.Time // devices that are connected, and since when
	failures  []time.Time             // of logins, within the window
	flooded   bool                    // there are enough of them for an alarm
	reasons   map[string]int          // of those failures since the last calm
	waiting   map[string]time.Time    // connections that are neither in nor known to be refused, by address
	refused   map[string]int          // connections that the broker names as refused, by host, since the last calm
	tlsError  string                  // what the line before said
}

type arrival struct {
	at   time.Time
	host string
}

func newSessions(cfg *Config) *sessions {
	return &sessions{
		cfg: cfg, taken: map[topic.MAC]bool{}, takeovers: map[topic.MAC][]arrival{}, foreign: map[topic.MAC]time.Time{},
		present: map[topic.MAC]time.Time{},
		reasons: map[string]int{}, waiting: map[string]time.Time{}, refused: map[string]int{},
	}
}

func (s *sessions) observe(o *observation, now time.Time) []finding {
	tlsError := s.tlsError
	s.tlsError = ""
	switch o.kind {
	case opened:
		if len(s.waiting) < maxTracked {
			s.waiting[o.address] = now
		}
	case connected:
		return s.connected(o, now)
	case taken:
		s.taken[o.client] = true
	case tlsFailed:
		s.tlsError = o.why
	case turnedAway:
		if o.address != "" && len(s.refused) < maxTracked {
			s.refused[o.address]++
		}
		return s.turnedAway(o.text, cmp.Or(o.why, tlsError), now)
	case ended:
		return s.ended(o, tlsError, now)
	case denied:
		if len(s.foreign) < maxTracked {
			s.foreign[o.client] = now
		}
		return []finding{{
			event: "publish_denied", kind: ForeignTopic, subject: string(o.client),
			detail: fmt.Sprintf("it published on %q, which is not its own; the broker dropped it", shorten(o.text)),
		}}
	}
	return nil
}

// connected notes a takeover if another connection of the same device was ended for
// this one. Under the client id of a device also the registrar connects, to end the
// session of one that was revoked: that is none.
func (s *sessions) connected(o *observation, now time.Time) []finding {
	delete(s.waiting, o.address)
	if o.client == "" {
		if mac, err := topic.ParseMAC(o.text); err == nil {
			delete(s.taken, mac)
			delete(s.present, mac)
		}
		return nil
	}
	if len(s.present) < maxPresent {
		s.present[o.client] = now
	}
	if !s.taken[o.client] {
		return nil
	}
	delete(s.taken, o.client)
	arrivals := append(since(s.takeovers[o.client], now.Add(-s.cfg.TakeoverWindow)), arrival{now, hostOf(o.address)})
	s.takeovers[o.client] = arrivals
	f := finding{event: "takeover"}
	if len(arrivals) >= s.cfg.Takeovers {
		f.kind, f.subject = Clone, string(o.client)
		f.detail = fmt.Sprintf("its certificate was connected %d times in %s while it was connected already, from %s: two machines may have it",
			len(arrivals), s.cfg.TakeoverWindow, hostsOf(arrivals))
		if len(arrivals) > maxArrivals {
			s.takeovers[o.client] = arrivals[len(arrivals)-maxArrivals:]
		}
	}
	return []finding{f}
}

// ended is about a device that has left, or about a connection that did not get in:
// Mosquitto 2.1 tells both alike, and the client id of the second is a claim.
func (s *sessions) ended(o *observation, tlsError string, now time.Time) []finding {
	if _, outside := s.waiting[o.address]; o.address != "" && outside {
		switch {
		case o.text == "not authorised":
			return s.turnedAway(reasonPassword, tlsError, now)
		case tlsError != "", strings.EqualFold(o.text, "protocol error"), o.text == "malformed packet", strings.HasPrefix(o.text, "oversize"):
			return s.turnedAway(reasonProtocol, tlsError, now)
		}
		return nil
	}
	if o.client != "" {
		delete(s.present, o.client)
	}
	return nil
}

// maxArrivals is how many takeovers of one device are remembered.
const maxArrivals = 100

func since(all []arrival, after time.Time) []arrival {
	return slices.DeleteFunc(all, func(a arrival) bool { return a.at.Before(after) })
}

func hostsOf(all []arrival) string {
	hosts := map[string]int{}
	for _, a := range all {
		hosts[a.host]++
	}
	return counted(hosts)
}

// turnedAway counts a failed login. With TLS the broker says why on the line before.
func (s *sessions) turnedAway(reason, tlsError string, now time.Time) []finding {
	why := reason
	if tlsError != "" {
		reason, why = reasonTLS, "tls: "+shorten(tlsError)
	}
	s.reasons[why]++
	for len(s.failures) > 0 && (s.failures[0].Before(now.Add(-s.cfg.FailedWindow)) || len(s.failures) == maxTracked) {
		s.failures = s.failures[1:]
	}
	s.failures = append(s.failures, now)
	f := finding{event: "login_" + reason}
	if len(s.failures) >= s.cfg.FailedLogins && !s.flooded {
		s.flooded = true // a flood is told of once, and counted
		f.kind, f.subject = FailedLogins, "broker"
		f.detail = fmt.Sprintf("%d in %s: %s; connections that did not get in: %s",
			len(s.failures), s.cfg.FailedWindow, counted(s.reasons), s.outside())
	}
	return []finding{f}
}

// outside counts, by host, the connections that were opened and did not get in.
func (s *sessions) outside() string {
	hosts := maps.Clone(s.refused)
	for address := range s.waiting {
		hosts[hostOf(address)]++
	}
	return counted(hosts)
}

// expire forgets what is older than its window and answers which alarms are over.
func (s *sessions) expire(now time.Time) (over []finding) {
	for mac, arrivals := range s.takeovers {
		if arrivals = since(arrivals, now.Add(-s.cfg.TakeoverWindow)); len(arrivals) == 0 {
			delete(s.takeovers, mac)
			over = append(over, finding{kind: Clone, subject: string(mac)})
		} else {
			s.takeovers[mac] = arrivals
		}
	}
	for mac, at := range s.foreign {
		if at.Before(now.Add(-s.cfg.TakeoverWindow)) {
			delete(s.foreign, mac)
			over = append(over, finding{kind: ForeignTopic, subject: string(mac)})
		}
	}
	if len(s.failures) == 0 || s.failures[len(s.failures)-1].Before(now.Add(-s.cfg.FailedWindow)) {
		s.failures, s.flooded = nil, false
		clear(s.reasons)
		clear(s.refused)
		over = append(over, finding{kind: FailedLogins, subject: "broker"})
	}
	maps.DeleteFunc(s.waiting, func(_ string, at time.Time) bool { return at.Before(now.Add(-s.cfg.FailedWindow)) })
	return over
}

// counted lists the most frequent first, a few of them.
func counted(n map[string]int) string {
	const few = 5
	names := slices.SortedFunc(maps.Keys(n), func(a, b string) int {
		if n[a] != n[b] {
			return n[b] - n[a]
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for i, name := range names {
		if i == few {
			parts = append(parts, fmt.Sprintf("%d more", len(names)-few))
			break
		}
		parts = append(parts, fmt.Sprintf("%s (%d)", name, n[name]))
	}
	return strings.Join(parts, ", ")
}

// shorten bounds text that is not ours.
func shorten(text string) string {
	const limit = 120
	if len(text) > limit {
		return text[:limit]
	}
	return text
}
