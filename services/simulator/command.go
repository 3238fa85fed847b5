package simulator

import (
	"encoding/json"
	"errors"

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

// maxPeriod is the longest that a strike stays on, in seconds.
const maxPeriod = 255

// parseCommand parses a command. The topic may have any known spelling.
func parseCommand(name string, body []byte) (command, error) {
	t, err := topic.Parse(name)
	if err != nil {
		return command{}, err
	}
	success := t.Verb == topic.Success
	t.Verb = ""
	c := command{place: t}
	switch {
	case success:
		c.action = note
		if len(body) != 1 || body[0] < '1' || body[0] > '3' {
			return c, errNoCommand
		}
	case len(body) == 0:
		c.action = ask
	case t.Component.Kind == topic.Strike:
		return c, c.parseStrike(body)
	case t.Component.Kind == topic.Siren && len(body) == 1 && (body[0] == '0' || body[0] == '1'):
		c.action = turnOff + action(body[0]-'0')
	default:
		return c, errNoCommand
	}
	return c, nil
}

func (c *command) parseStrike(body []byte) error {
	var b struct {
		PowerFlag *int `json:"power-flag"`
		Period    int  `json:"period"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return errNoCommand
	}
	if b.PowerFlag == nil || *b.PowerFlag < 0 || *b.PowerFlag > 2 || b.Period < 0 || b.Period > maxPeriod {
		return errNoCommand
	}
	c.action = turnOff + action(*b.PowerFlag)
	c.period = b.Period
	return nil
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
