// Package alert defines an alarm that people look at and act on: raised by a rule or a service,
// acknowledged, shelved and cleared. It is pure: what an entry of the stream ALARM looks like,
// and what an observation, the time or a person makes of it.
package alert

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Prefix begins the subjects of the stream ALARM; the rest of a subject is the alarm's id.
const Prefix = "f2.alarms.state."

// HeaderKept marks an entry that was stored again, and in which nothing has changed: ALARM would have
// dropped the state of an alarm that somebody still needs. Its value is "1". It is no news for anybody.
const HeaderKept = "F2-Kept"

// Severity says how soon somebody should look.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Phase is where an alarm is in its life.
type Phase string

// The stages of an alarm's life. An alarm without entries is Idle.
const (
	Idle    Phase = "idle"    // it was pending, and its condition did not hold long enough
	Pending Phase = "pending" // its condition holds, and has to hold until Due
	Raised  Phase = "raised"
	Cleared Phase = "cleared"
)

// Identity says what an alarm is about: a component of a controller, or a service of the mesh.
type Identity struct {
	Rule      string `json:"rule,omitempty"`
	MAC       string `json:"mac,omitempty"`
	Mode      string `json:"mode,omitempty"`
	Connector int    `json:"connector,omitempty"`
	Component string `json:"component,omitempty"`
	Device    string `json:"device,omitempty"` // name of the sensor device

	Service string `json:"service,omitempty"`
	Kind    string `json:"kind,omitempty"`
	About   string `json:"about,omitempty"` // such as a stream's or a secret's name
}

// ID returns the alarm's id: rule.<rule>.<mac>.<mode>.<connector>.<component>, or
// service.<service>.<kind>.<about>.
func (s *Identity) ID() string {
	if s.Rule != "" {
		return "rule." + s.Rule + "." + s.MAC + "." + s.Mode + "." + strconv.Itoa(s.Connector) + "." + s.Component
	}
	return "service." + token(s.Service) + "." + token(s.Kind) + "." + token(s.About)
}

// Topic returns the component that an alarm of a rule is about, as a topic of DECODED.
func (s *Identity) Topic() (topic.Topic, error) {
	return topic.ParseSubject(strings.Join([]string{"f2.decoded", s.MAC, s.Mode, strconv.Itoa(s.Connector), s.Component}, "."))
}

// token returns text as one token of a subject: itself, or a digest where it cannot be one.
func token(text string) string {
	const longest = 64
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	if text != "" && len(text) <= longest && strings.IndexFunc(text, odd) < 0 {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// Acknowledgement says that a person has seen the alarm.
type Acknowledgement struct {
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Comment string    `json:"comment,omitempty"`
}

// Shelf says until when nobody is notified of the alarm.
type Shelf struct {
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Until   time.Time `json:"until"`
	Comment string    `json:"comment,omitempty"`
}

// Entry is a message of the stream ALARM: an alarm after a change. The last entry of a subject
// is the alarm's state.
type Entry struct {
	Status   Phase     `json:"status"`
	Time     time.Time `json:"time"` // of this change
	Severity Severity  `json:"severity,omitempty"`
	Summary  string    `json:"summary,omitempty"`
	Identity
	Detail string `json:"detail,omitempty"` // the values that raised it
	// Occurrence identifies one life of the alarm, from pending or raised to cleared.
	Occurrence   string           `json:"occurrence,omitempty"`
	Since        time.Time        `json:"since,omitzero"` // since when the condition holds
	Due          time.Time        `json:"due,omitzero"`   // when a pending alarm is raised
	RaisedAt     time.Time        `json:"raised,omitzero"`
	ClearedAt    time.Time        `json:"cleared,omitzero"`
	Acknowledged *Acknowledgement `json:"acknowledged,omitempty"`
	Shelved      *Shelf           `json:"shelved,omitempty"`
	// Event is the last message of the component that changed the alarm. An earlier one does
	// not change it again.
	Event event.ID `json:"event,omitzero"`
}

// Subject returns where the alarm's entries are stored.
func (e *Entry) Subject() string { return Prefix + e.ID() }

// Active reports whether the alarm is raised.
func (e *Entry) Active() bool { return e.Status == Raised }

// Open reports whether somebody has to look at the alarm: it is raised, or was cleared before
// anybody acknowledged it.
func (e *Entry) Open() bool { return e.Active() || e.Status == Cleared && e.Acknowledged == nil }

// Needed reports whether the alarm's state must not be forgotten: somebody has to look at it, it is about
// to be raised, or it is shelved.
func (e *Entry) Needed() bool { return e.Open() || e.Status == Pending || e.Shelved != nil }

// Quiet reports whether the alarm is shelved at a time.
func (e *Entry) Quiet(now time.Time) bool { return e.Shelved != nil && now.Before(e.Shelved.Until) }

// Handle returns the alarm's short name for people: 8 hex digits of its id.
func (e *Entry) Handle() string { return digest(e.ID())[:8] }

// Parse parses an entry.
func Parse(data []byte) (e Entry, err error) {
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, fmt.Errorf("parsing an entry of ALARM: %w", err)
	}
	switch e.Status {
	case Idle, Pending, Raised, Cleared:
		return e, nil
	}
	return Entry{}, fmt.Errorf("parsing an entry of ALARM: unknown status %q; known: idle, pending, raised, cleared", e.Status)
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	return hex.EncodeToString(sum[:8])
}
