package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
)

// order is one command from COMMANDS.
type order struct {
	msg      jetstream.Msg
	sequence uint64
	issued   time.Time
	deadline time.Time   // it must not be delivered later
	id       string      // the sender's Nats-Msg-Id
	person   string      // who sent it; "" if it is not known
	waits    bool        // for a controller that is not connected
	body     []byte      // what is published: for a toggle, what it was turned into
	note     string      // about what is published, for the outcome's detail
	place    topic.Topic // zero if the subject does not parse
	refusal  error       // why it is not a valid command; nil: it is
	sent     time.Time   // when it was about to be published
	resumed  bool        // another process has stored its intent
}

// maxID is how many bytes of the sender's id a result repeats.
const maxID = 256

func newOrder(m jetstream.Msg, maxAge time.Duration) (*order, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	o := &order{
		msg: m, sequence: meta.Sequence.Stream, issued: meta.Timestamp, deadline: meta.Timestamp.Add(maxAge),
		id: m.Headers().Get(jetstream.MsgIDHeader), person: m.Headers().Get(outcome.HeaderPerson), body: m.Data(),
	}
	if !access.ValidName(o.person) {
		o.person = "" // or any text could be in the audit trail
	}
	if len(o.id) > maxID {
		o.id = strings.ToValidUTF8(o.id[:maxID], "")
	}
	if o.place, err = topic.ParseSubject(m.Subject()); err != nil {
		o.place, o.refusal = topic.Topic{}, err
		return o, nil //nolint:nilerr // the refusal is its outcome
	}
	o.refusal = check(o.place, m.Data())
	if text := m.Headers().Get(outcome.HeaderWait); text != "" && o.refusal == nil {
		if o.waits, err = strconv.ParseBool(text); err != nil {
			o.refusal = fmt.Errorf("header %s must be true or false", outcome.HeaderWait)
		}
	}
	return o, nil
}

// check returns an error if body is not a valid command.
func check(t topic.Topic, body []byte) error {
	if t.Component.Kind == topic.Sensor && len(body) > 0 {
		// Older firmware publishes readings under cmnd, so it would look like a reading.
		return errors.New("a sensor accepts no command except the empty payload that requests its state")
	}
	var parser payload.Parser
	_, err := parser.Parse(t, body)
	return err
}

// component returns the command's place without root and verb.
func (o *order) component() topic.Topic { return component(o.place) }

func component(t topic.Topic) topic.Topic {
	t.Root, t.Verb = "", ""
	return t
}

// result returns a RESULT message of the command.
func (o *order) result(what outcome.Outcome, detail string, state []byte) outcome.Result {
	if o.note != "" {
		detail = strings.TrimSuffix(o.note+"; "+detail, "; ")
	}
	return outcome.Result{
		Sequence: o.sequence, ID: o.id, Person: o.person, Command: o.msg.Subject(), Outcome: what, Detail: detail,
		Issued: o.issued.UTC(), Sent: o.sent.UTC(), At: time.Now().UTC(), State: state,
	}
}

// expectation is the report that a controller sends once it has carried out a command.
type expectation struct {
	reports bool  // it sends one at all
	status  *bool // that it reports; nil: any
	asked   bool  // the command only requests the state
}

// expects returns the report to expect. A strike or siren that is switched on or off
// reports that status; after a toggle that another process turned into one of them, the
// status may be either.
func (o *order) expects() expectation {
	body := bytes.TrimSpace(o.body)
	if len(body) == 0 {
		return expectation{reports: true, asked: true}
	}
	on := func(v bool) expectation { return expectation{reports: true, status: &v} }
	switch o.place.Component.Kind {
	case topic.Siren:
		return on(body[0] == '1')
	case topic.Strike:
		if b := parseStrike(body); b.PowerFlag != toggle {
			return on(b.PowerFlag == powerOn)
		}
		return expectation{reports: true}
	}
	return expectation{}
}

// met reports whether a message of the component, under root, is the expected report.
func (e expectation) met(root topic.Root, kind topic.ComponentKind, report []byte) bool {
	if !e.reports || root != topic.Stat && (!e.asked || kind != topic.Sensor) {
		return false
	}
	if e.status == nil {
		return true
	}
	var b struct {
		Status *bool `json:"status"`
	}
	return json.Unmarshal(report, &b) == nil && b.Status != nil && *b.Status == *e.status
}

// maxState is the size of the largest state that a result repeats, in bytes.
const maxState = 1024

// state returns a report for a result, without white space. It returns nil for a reader,
// whose data are personal, and for large reports.
func state(kind topic.ComponentKind, report []byte) []byte {
	if kind == topic.Reader || len(report) > maxState {
		return nil
	}
	var b bytes.Buffer
	if json.Compact(&b, report) != nil {
		return nil
	}
	return b.Bytes()
}
