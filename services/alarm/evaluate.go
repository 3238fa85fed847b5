package alarm

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

const (
	decodedPrefix = "f2.decoded."
	latestPrefix  = "$KV.LATEST."
)

// evaluator holds the rules against messages. It belongs to one goroutine.
type evaluator struct {
	rules      []*Rule
	components map[string]*component // by subject on DECODED
	store      *store
	metrics    *metrics

	facts   facts
	message event.Decoded
}

// component is what the evaluator knows of a component of a controller.
type component struct {
	rules    []bound
	last     event.ID // of the last message on DECODED
	heardID  event.ID // of the message of seen, which LATEST may have had first
	seen     time.Time
	interval time.Duration // the longest of the last ones
	recent   [4]time.Duration
	n        int
}

// bound is a rule for one component.
type bound struct {
	*Rule
	source alert.Identity
	id     string
}

func newEvaluator(rules []*Rule, s *store, m *metrics) *evaluator {
	e := &evaluator{components: map[string]*component{}, store: s, metrics: m}
	e.use(rules)
	return e
}

// use replaces the rules.
func (e *evaluator) use(rules []*Rule) {
	e.rules = rules
	for subject, c := range e.components {
		c.rules = e.bind(subject, "")
	}
}

// bind returns the rules for a component.
func (e *evaluator) bind(subject, device string) (all []bound) {
	t, err := topic.ParseSubject(subject)
	if err != nil {
		return nil
	}
	name := subject[strings.LastIndexByte(subject, '.')+1:]
	for _, r := range e.rules {
		if !r.MAC.matchMAC(string(t.MAC)) || !r.Mode.match(string(t.Mode)) || !r.Component.match(name) ||
			len(r.Connector) > 0 && !slices.Contains(r.Connector, t.Connector) {
			continue
		}
		source := alert.Identity{Rule: r.Name, MAC: string(t.MAC), Mode: string(t.Mode), Connector: t.Connector, Component: name, Device: device}
		all = append(all, bound{Rule: r, source: source, id: source.ID()})
	}
	return all
}

// component returns that of a subject.
func (e *evaluator) component(subject string) *component {
	c := e.components[subject]
	if c == nil {
		subject = strings.Clone(subject)
		c = &component{rules: e.bind(subject, "")}
		e.components[subject] = c
	}
	return c
}

// remember learns of a component from LATEST, when the service starts: rules about its absence
// count from there.
func (e *evaluator) remember(m *jetstream.RawStreamMsg) {
	subject := decodedPrefix + strings.TrimPrefix(m.Subject, latestPrefix)
	d := &e.message
	if event.ParseDecoded(subject, m.Data, d) != nil {
		return
	}
	c := e.component(subject)
	c.seen, c.heardID = d.Received, d.ID
}

// see adds what follows from a message to changes.
func (e *evaluator) see(m jetstream.Msg, changes map[string][]rewrite) {
	e.metrics.received.Inc()
	d := &e.message
	if err := event.ParseDecoded(m.Subject(), m.Data(), d); err != nil {
		e.metrics.unreadable.Inc()
		return
	}
	replaced := m.Headers().Get(event.HeaderReplace) != ""        // the values are new, the moment is long gone
	command := d.Root == string(topic.Cmnd) && len(d.Values) == 0 // what was asked for, not what is
	if replaced || command {
		return
	}
	c := e.component(m.Subject())
	if bytes.Compare(d.ID[:], c.last[:]) <= 0 {
		return // it was delivered before
	}
	c.heard(d)
	if len(c.rules) == 0 {
		return
	}
	e.facts.learn(d)
	for i := range c.rules {
		if o := e.judge(&c.rules[i], d); o != nil {
			id := c.rules[i].id
			changes[id] = append(changes[id], func(entry alert.Entry) []alert.Entry { return entry.Observe(o) })
		}
	}
}

// heard notes when the component was heard, and how often it is.
func (c *component) heard(d *event.Decoded) {
	c.last = d.ID
	if !c.seen.IsZero() && d.Received.After(c.seen) {
		c.recent[c.n%len(c.recent)] = d.Received.Sub(c.seen)
		c.n++
		c.interval = slices.Max(c.recent[:])
	}
	if d.Received.After(c.seen) {
		c.seen, c.heardID = d.Received, d.ID
	}
}

// judge holds a rule against a message; nil: it changes nothing.
func (e *evaluator) judge(r *bound, d *event.Decoded) *alert.Observation {
	if len(r.Device) > 0 && !r.Device.match(d.Device) {
		return nil
	}
	o := &alert.Observation{Event: d.ID, At: d.Time}
	if r.Absent.given() {
		o.Clears = true
	} else {
		holds, known := e.facts.ask(r.when)
		o.Clears = known && !holds
		if r.clear != nil {
			ends, known := e.facts.ask(r.clear)
			o.Clears = known && ends && !holds
		}
		if begin, ok := r.begin(d.Time); holds && ok {
			o.Holds, o.Due = true, begin.Add(time.Duration(r.For))
		}
	}
	if o.Holds {
		e.store.instance(r.id) // a message of the same batch may end what this one begins
	} else if !e.store.known(r.id) {
		return nil
	}
	o.Identity, o.Severity, o.Summary = r.source, r.Severity, r.Summary
	o.Identity.Device = strings.Clone(d.Device)
	if o.Holds {
		o.Detail = strings.Clone(detail(d, e.facts.State))
	}
	return o
}

// begin returns from when on the rule is in force.
func (r *Rule) begin(t time.Time) (time.Time, bool) {
	if r.Schedule == nil {
		return t, true
	}
	return r.Schedule.next(t)
}

// tick adds what follows from the time: pending alarms that are due, shelves that end and, if
// this service is the one that receives messages, components that are absent.
func (e *evaluator) tick(due time.Time, pinned bool, changes map[string][]rewrite) {
	for _, id := range e.store.ids(func(entry *alert.Entry) bool { _, changed := entry.Advance(due); return changed }) {
		changes[id] = append(changes[id], func(entry alert.Entry) []alert.Entry {
			if next, changed := entry.Advance(due); changed {
				return []alert.Entry{next}
			}
			return nil
		})
	}
	if !pinned {
		return // who else hears the components?
	}
	for _, c := range e.components {
		for i := range c.rules {
			if r := &c.rules[i]; r.Absent.given() && !c.seen.IsZero() {
				e.absent(c, r, due, changes)
			}
		}
	}
}

// absent raises the alarm of a component that is silent for too long.
func (e *evaluator) absent(c *component, r *bound, now time.Time, changes map[string][]rewrite) {
	from := c.seen.Add(r.Absent.limit(c.interval))
	if now.Before(from) || e.store.raised(r.id) {
		return
	}
	o := &alert.Observation{
		Silence: true, Event: c.heardID, At: from, Due: from, Holds: true, Identity: r.source, Severity: r.Severity, Summary: r.Summary,
		Detail: "last heard at " + c.seen.UTC().Format(time.RFC3339),
	}
	changes[r.id] = append(changes[r.id], func(entry alert.Entry) []alert.Entry { return entry.Observe(o) })
}

// retire clears the alarms of rules that no longer exist.
func (e *evaluator) retire(now time.Time, changes map[string][]rewrite) {
	names := map[string]bool{"": true} // a service's alarm has no rule
	for _, r := range e.rules {
		names[r.Name] = true
	}
	for _, id := range e.store.ids(func(entry *alert.Entry) bool { return !names[entry.Rule] }) {
		changes[id] = append(changes[id], func(entry alert.Entry) []alert.Entry { return entry.Retire(now) })
	}
}
