package alarm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// facts are what an expression knows of a message.
type facts struct {
	MAC        string         `expr:"mac"`
	Controller int            `expr:"controller"`
	Mode       string         `expr:"mode"`
	Connector  int            `expr:"connector"`
	Component  string         `expr:"component"`
	Device     string         `expr:"device"`
	Root       string         `expr:"root"`
	Verb       string         `expr:"verb"`
	Time       time.Time      `expr:"time"`
	Delay      time.Duration  `expr:"delay"`
	Repeat     bool           `expr:"repeat"`
	Metadata   string         `expr:"metadata"`
	Values     map[string]any `expr:"values"` // of a sensor, by label
	State      map[string]any `expr:"state"`  // of another component
	On         bool           `expr:"on"`     // a member of state is true
}

// compile checks an expression. It has to be a condition.
func compile(text string) (*vm.Program, error) {
	program, err := expr.Compile(text, expr.Env(&facts{}), expr.AsBool())
	if err != nil {
		return nil, fmt.Errorf("%q: %s", text, strings.SplitN(err.Error(), "\n", 2)[0])
	}
	return program, nil
}

// ask evaluates a condition. known is false if the message does not say: it lacks a value.
func (f *facts) ask(program *vm.Program) (holds, known bool) {
	result, err := expr.Run(program, f)
	if err != nil {
		return false, false
	}
	holds, known = result.(bool)
	return holds, known
}

// learn reads a message. The maps are made once and used again.
func (f *facts) learn(d *event.Decoded) {
	values, state := f.Values, f.State
	if values == nil {
		values, state = map[string]any{}, map[string]any{}
	}
	clear(values)
	clear(state)
	*f = facts{
		MAC: d.MAC, Controller: int(d.ControllerID), Mode: d.Mode, Connector: d.Connector, Component: d.Component, Device: d.Device,
		Root: d.Root, Verb: d.Verb, Time: d.Time, Delay: d.Received.Sub(d.Time), Repeat: d.Repeat, Metadata: d.MetadataVersion,
		Values: values, State: state,
	}
	for i := range d.Values {
		if v := &d.Values[i]; v.Text != nil {
			values[v.Label] = *v.Text
		} else {
			values[v.Label] = v.Number
		}
	}
	if len(d.State) > 0 && json.Unmarshal(d.State, &state) == nil {
		for _, v := range state {
			f.On = f.On || v == true
		}
	}
}

// detail says for people what raised an alarm. What a reader read is personal, so of a state
// it takes switches alone.
func detail(d *event.Decoded, state map[string]any) string {
	const longest = 300
	var parts []string
	for i := range d.Values {
		parts = append(parts, d.Values[i].Label+" "+d.Values[i].Format())
	}
	for name, v := range state {
		if v == true {
			parts = append(parts, name+" is on")
		}
	}
	if len(d.Values) == 0 {
		slices.Sort(parts)
	}
	text := strings.Join(parts, ", ")
	for len(text) > longest {
		parts = parts[:len(parts)-1]
		text = strings.Join(parts, ", ") + ", …"
	}
	return text
}
