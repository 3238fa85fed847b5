package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	maxOutcomes = 50
	maxTrail    = 50
	// maxScanned bounds how many messages of one controller a page reads to show the last of
	// them.
	maxScanned = 20_000
)

// component is the last state of a component of a controller.
type component struct {
	Key       string // its name as an event: sensor-mode.1.sensor-1
	Mode      string
	Connector int
	Name      string
	Device    string // of a sensor
	Time      time.Time
	Clock     time.Time // the device's, if that is implausible; else zero
	Readings  []event.DataPoint
	State     string

	device int32
}

// Chart is the address of a reading's values over time.
func (c component) Chart(mac topic.MAC, point int32) string {
	return fmt.Sprintf("/fleet/%s/series?device=%d&point=%d", mac, c.device, point)
}

// Numeric reports whether a reading can be drawn.
func (component) Numeric(p event.DataPoint) bool { return p.Text == nil }

type command struct {
	Component, Outcome, Detail, ID string
	Issued, At                     time.Time
}

type controllerPage struct {
	device
	At         time.Time
	Components []component
	Events     []deviceEvent
	Outcomes   []command
	Targets    []target     // what somebody may switch
	CommandID  string       // begins the ids of commands of this page
	Trail      []auditEntry // nil for who may not see it
	Problems   []string     // what could not be read
}

func (p *controllerPage) title() string {
	if p.Name != "" {
		return p.Name
	}
	return string(p.MAC)
}

func (p *controllerPage) commands() []string {
	mac := string(p.MAC)
	return []string{
		"nats kv ls LATEST | grep " + mac,
		"nats sub 'f2.decoded." + mac + ".>'",
		"nats sub --stream RAW --since 1h 'f2.raw.*." + mac + ".>'",
		"nats stream view RESULT --subject 'f2.result." + mac + ".>'",
		"psql -c \"SELECT * FROM device_event WHERE mac = '" + mac + "' ORDER BY time DESC LIMIT 50\"",
		"f2mesh device show " + mac,
		"f2mesh device log " + mac,
	}
}

// rows are the last states.
func (p *controllerPage) rows() [][]string {
	all := [][]string{{"mode", "connector", "component", "time", "label", "value", "unit"}}
	for i := range p.Components {
		c := &p.Components[i]
		row := func(label, value, unit string) {
			all = append(all, []string{c.Mode, strconv.Itoa(c.Connector), c.Name, stamp(c.Time), label, value, unit})
		}
		for _, v := range c.Readings {
			row(v.Label, bare(v), v.Unit)
		}
		if len(c.Readings) == 0 {
			row("state", c.State, "")
		}
	}
	return all
}

// bare is a value without its unit.
func bare(v event.DataPoint) string {
	if v.Text != nil {
		return *v.Text
	}
	return strconv.FormatFloat(v.Number, 'f', -1, 64)
}

// controllerOf is the controller in the address of a page, if it is known and somebody may
// look at it. Otherwise the answer says so.
func (c *Console) controllerOf(w http.ResponseWriter, r *http.Request, s *session) (d device, ok bool) {
	mac, err := topic.ParseMAC(r.PathValue("mac"))
	if err != nil || string(mac) != r.PathValue("mac") {
		c.fail(w, r, s, http.StatusNotFound, "The address has no MAC address: 12 lower-case hex digits.")
		return d, false
	}
	d, known, err := c.fleet.find(r.Context(), mac)
	if err != nil {
		c.unavailable(w, r, s, "The fleet", err)
		return d, false
	}
	if !c.require(w, r, s, access.View, access.Place{MAC: mac, Name: d.Name}) {
		return d, false
	}
	if !known {
		c.fail(w, r, s, http.StatusNotFound, "No controller with this MAC address is registered, and none was heard.")
	}
	return d, known
}

func (c *Console) serveController(w http.ResponseWriter, r *http.Request, s *session) {
	d, ok := c.controllerOf(w, r, s)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	mac := d.MAC
	p := &controllerPage{device: d, At: time.Now(), CommandID: newID()}
	var err error
	if p.Components, err = c.components(ctx, mac); err != nil {
		c.unavailable(w, r, s, "LATEST", err)
		return
	}
	if asCSV(w, r, string(mac), p) {
		return
	}
	part := func(what string, err error) {
		if err != nil {
			c.log.Warn("a part of a page cannot be read", "path", r.URL.Path, "error", err)
			p.Problems = append(p.Problems, what)
		}
	}
	if c.fleet.unread() {
		p.Problems = append(p.Problems, "who is registered")
	}
	p.Targets = c.targets(s, &d, p.Components)
	p.Events, err = c.events(ctx, mac)
	part("events", err)
	p.Outcomes, err = c.outcomes(ctx, mac)
	part("commands", err)
	if ok, _ := c.allowed(s, access.Administer, access.Place{}); ok {
		p.Trail, err = c.trail(ctx, "f2.audit.*."+string(mac), maxTrail)
		part("the audit trail", err)
	}
	c.show(w, r, s, "controller", p)
}

// components reads the last states of a controller, in the order of its connectors.
func (c *Console) components(ctx context.Context, mac topic.MAC) ([]component, error) {
	var all []component
	err := read(ctx, c.from.Streams.JetStream(), stream.Latest, latestPrefix+string(mac)+".>", 1, func(m *jetstream.RawStreamMsg) error {
		if one, ok := componentOf(decodedPrefix+strings.TrimPrefix(m.Subject, latestPrefix), m.Data); ok {
			all = append(all, one)
		}
		return nil
	})
	slices.SortFunc(all, func(x, y component) int {
		if x.Connector != y.Connector {
			return x.Connector - y.Connector
		}
		return strings.Compare(x.Name, y.Name)
	})
	return all, err
}

// componentOf reads a message of DECODED; false if it is none, or a command.
func componentOf(subject string, data []byte) (c component, ok bool) {
	var d event.Decoded
	t, err := topic.ParseSubject(subject)
	if err != nil || event.ParseDecoded(subject, data, &d) != nil || d.Root == string(topic.Cmnd) && t.Component.Kind != topic.Sensor {
		return c, false
	}
	c = component{
		Key: keyOf(subject), Mode: d.Mode, Connector: d.Connector, Name: d.Component,
		Device: d.Device, Time: d.Time, Clock: d.DeviceTime, Readings: d.Values, device: d.DeviceID,
	}
	switch {
	case len(d.Values) > 0:
	case t.Component.Kind == topic.Reader:
		c.State = "read" // a card's data are personal
	default:
		c.State = stateText(d.State)
	}
	return c, true
}

// keyOf is a component's name as an event.
func keyOf(subject string) string {
	_, place, _ := strings.Cut(strings.TrimPrefix(subject, decodedPrefix), ".")
	return place
}

// stateText shows the members of a state for people.
func stateText(state []byte) string {
	var members map[string]any
	if json.Unmarshal(state, &members) != nil {
		return plain.Text(string(state))
	}
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = plain.Text(name) + ": " + plain.Text(fmt.Sprint(members[name]))
	}
	return strings.Join(parts, ", ")
}

// outcomes reads what became of the last commands to a controller, the newest first.
func (c *Console) outcomes(ctx context.Context, mac topic.MAC) ([]command, error) {
	bySequence := map[uint64]command{}
	scanned := 0
	err := read(ctx, c.from.Streams.JetStream(), stream.Result, "f2.result."+string(mac)+".>", 1, func(m *jetstream.RawStreamMsg) error {
		if scanned++; scanned > maxScanned {
			return errEnough
		}
		one, err := outcome.Parse(m.Header, m.Data)
		if err != nil {
			return nil //nolint:nilerr // somebody else's message
		}
		place := strings.TrimPrefix(one.Command, "f2.command."+string(mac)+".")
		bySequence[one.Sequence] = command{place, string(one.Outcome), one.Detail, one.ID, one.Issued, one.At}
		return nil
	})
	all := make([]command, 0, len(bySequence))
	for _, one := range bySequence {
		all = append(all, one)
	}
	slices.SortFunc(all, func(x, y command) int { return y.Issued.Compare(x.Issued) })
	return all[:min(len(all), maxOutcomes)], err
}

// liveController sends the last state of each component, and then what follows.
func (c *Console) liveController(w http.ResponseWriter, r *http.Request, s *session) {
	d, ok := c.controllerOf(w, r, s)
	if !ok {
		return
	}
	mac := d.MAC
	first := func(add func(string, update)) {
		ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
		defer cancel()
		err := read(ctx, c.from.Streams.JetStream(), stream.Latest, latestPrefix+string(mac)+".>", 1, func(m *jetstream.RawStreamMsg) error {
			subject := decodedPrefix + strings.TrimPrefix(m.Subject, latestPrefix)
			add(keyOf(subject), update{subject, m.Data})
			return nil
		})
		if err != nil && r.Context().Err() == nil {
			c.log.Warn("a part of a page cannot be read", "path", r.URL.Path, "error", err)
		}
	}
	c.follow(w, r, s, mac, first, func(_ string, u update) ([]byte, error) {
		one, ok := componentOf(u.subject, u.data)
		if !ok {
			return nil, nil
		}
		var b bytes.Buffer
		err := c.pages["controller"].ExecuteTemplate(&b, "component", []any{one, mac})
		return b.Bytes(), err
	})
}
