package simulator

import (
	"encoding/json"
	"errors"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// command is a command to a controller (section 3 of the design).
type command struct {
	place  topic.Topic // Root Cmnd, no Verb
	action action
	period int // seconds that a strike stays on; 0 is until the next command
}

type action uint8

const (
	ask     action = iota // request the status
	turnOff               // power flag 0, siren 0
	turnOn                // power flag 1, siren 1
	toggle                // power flag 2
	note                  // a reader's success: has no answer
)

var errNoCommand = errors.New("the component has no such command")

// parseCommand parses a command. The topic may have any known spelling.
func parseCommand(name string, body []byte) (command, error) {
	t, err := topic.Parse(name)
	if err != nil {
		return command{}, err
	}
	p, err := new(payload.Parser).Parse(t, body)
	if err != nil {
		return command{}, err
	}
	c := command{place: t}
	c.place.Verb = ""
	var state struct {
		PowerFlag *int `json:"power-flag"` // of a strike
		Period    int  `json:"period"`     // of a strike
		Value     *int `json:"value"`      // of a siren
	}
	if json.Unmarshal(p.State, &state) != nil {
		return c, errNoCommand // a reading
	}
	switch {
	case state.PowerFlag != nil:
		c.action, c.period = turnOff+action(*state.PowerFlag), state.Period //nolint:gosec // payload limits it
	case state.Value != nil:
		c.action = turnOff + action(*state.Value) //nolint:gosec // payload limits it
	case t.Verb == topic.Success:
		c.action = note
	}
	return c, nil
}

// obey changes the component's state; now is in microseconds since 1970.
func (k *component) obey(c command, now int64) {
	switch c.action {
	case turnOff:
		k.on[0] = false
	case turnOn:
		k.on[0] = true
	case toggle:
		k.on[0] = !k.on[0]
	default:
		return
	}
	k.offAt = 0
	if k.on[0] && c.period > 0 {
		k.offAt = now + int64(c.period)*perSecond
	}
}
