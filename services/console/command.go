package console

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	operate "github.com/f2mesh/f2mesh/pkg/operate/command"
)

// commandTimeout is longer than a command may live, with the time for its outcome: the bridge's
// limit of a request.
const commandTimeout = 3 * time.Minute

// maxFormID is how long the id of a form may be: an id has at most 128 bytes with what is added.
const maxFormID = 100

// target is a component that somebody may command.
type target struct {
	Place string // mode.connector.component, as in subjects
	Label string
	Kind  topic.ComponentKind
}

// Periodic reports whether it can be switched on for a time.
func (t target) Periodic() bool { return t.Kind == topic.Strike }

// targets are the components of a controller that somebody may switch.
func (c *Console) targets(s *session, d *device, components []component) (all []target) {
	if !s.person.named && c.access.Policy().Restricted() {
		return nil // the bridge takes commands only of people of the access file
	}
	for i := range components {
		key := components[i].Key
		t, err := topic.ParseSubject(decodedPrefix + string(d.MAC) + "." + key)
		if err != nil || t.Component.Kind != topic.Strike && t.Component.Kind != topic.Siren {
			continue
		}
		t.Verb = ""
		one := target{
			Place: strings.Join([]string{string(t.Mode), strconv.Itoa(t.Connector), t.Component.String()}, "."),
			Label: fmt.Sprintf("%s at J%d", t.Component, t.Connector), Kind: t.Component.Kind,
		}
		if ok, _ := c.allowed(s, access.Command, access.PlaceOf(t, d.Name)); ok && !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// newID makes a form's command idempotent: sent twice, it is done once.
func newID() string { return "console-" + rand.Text() }

type commandPage struct {
	device
	Component string
	Outcome   string
	Detail    string
	Good      bool
	Repeated  bool // it was sent before, not again
}

func (p *commandPage) title() string { return "Command to " + p.Component }

func (p *commandPage) commands() []string {
	return []string{
		"f2mesh command " + string(p.MAC) + " … --power on --period 5",
		"nats stream view RESULT --subject 'f2.result." + string(p.MAC) + ".>'",
	}
}

// sendCommand sends a command as a request to the bridge, and shows its outcome.
func (c *Console) sendCommand(w http.ResponseWriter, r *http.Request, s *session) {
	d, ok := c.controllerOf(w, r, s)
	if !ok {
		return
	}
	place, id := r.PostFormValue("place"), r.PostFormValue("id")
	t, err := topic.ParseSubject("f2.command." + string(d.MAC) + "." + place)
	if err != nil {
		c.fail(w, r, s, http.StatusBadRequest, "There is no such component.")
		return
	}
	if !c.require(w, r, s, access.Command, access.PlaceOf(t, d.Name)) {
		return
	}
	period := 0
	if text := r.PostFormValue("period"); text != "" {
		if period, err = strconv.Atoi(text); err != nil {
			c.fail(w, r, s, http.StatusBadRequest, "The period is a number of seconds.")
			return
		}
	}
	power := r.PostFormValue("power")
	body, err := operate.Body(t.Component.Kind, power, period)
	switch {
	case err != nil:
		c.fail(w, r, s, http.StatusBadRequest, "This cannot be sent: "+err.Error()+".")
		return
	case power == "" || !strings.HasPrefix(id, "console-") || len(id) > maxFormID:
		c.fail(w, r, s, http.StatusBadRequest, "This is not what the form sends: open the controller's page again.")
		return
	case r.PostFormValue("sure") == "":
		c.fail(w, r, s, http.StatusBadRequest, "Confirm that the command shall be sent.")
		return
	}
	// A form that is sent twice is one command, but another choice in it is another command: with
	// the same id it would have the outcome of the first.
	id = fmt.Sprintf("%s-%s-%d", id, power, period)
	c.allowTime(w, commandTimeout)
	p := &commandPage{device: d, Component: fmt.Sprintf("%s at J%d", t.Component, t.Connector)}
	reply, err := c.ask(r.Context(), &nats.Msg{
		Subject: "f2.do." + string(d.MAC) + "." + place, Data: body,
		Header: nats.Header{nats.MsgIdHdr: {id}, outcome.HeaderPerson: {s.person.Name}},
	}, commandTimeout)
	var answer operate.Answer
	if err == nil {
		err = json.Unmarshal(reply.Data, &answer)
	}
	if err != nil {
		c.log.Warn("a command has no outcome yet", "person", s.person.Name, "mac", d.MAC, "component", p.Component, "error", err)
		p.Outcome, p.Detail = string(outcome.Unknown), err.Error()
		if _, ok := errors.AsType[*refusal](err); ok {
			p.Outcome = string(outcome.Refused)
		}
	} else {
		p.Outcome, p.Detail, p.Good, p.Repeated = string(answer.Outcome), answer.Detail, answer.Succeeded(), answer.Repeated
	}
	c.show(w, r, s, "command", p)
}
