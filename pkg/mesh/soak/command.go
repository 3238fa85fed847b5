package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
)

// commandBook is what the sender of commands and the controllers know of them. It is safe
// for concurrent use.
type commandBook struct {
	run int64 // makes the ids of a run's commands its own

	mu   sync.Mutex
	sent map[string]*sentCommand // by controller and payload, which no two commands share
	late []string                // commands that no sender knows
}

type sentCommand struct {
	id         string
	stored     bool // COMMANDS acknowledged it
	issued     time.Time
	carriedOut []time.Time
	outcomes   []string
}

// commandInterval is long enough that a controller's report on a command has come, however
// late, when the next command but one goes to it: these ask for the same state, and
// the report of one would confirm the other.
const commandInterval = 2 * time.Second

// maxCommands is how many different commands one controller can get: the flag of a strike
// is 0 or 1, and its period 1 to 255.
const maxCommands = 2 * 255

func newCommandBook() *commandBook {
	return &commandBook{run: time.Now().UnixNano(), sent: map[string]*sentCommand{}}
}

func (b *commandBook) carriedOut(mac, payload string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.sent[mac+payload]
	if c == nil {
		b.late = append(b.late, mac+" "+payload)
		return
	}
	c.carriedOut = append(c.carriedOut, at)
}

// send issues one command every interval, in turn to the controllers, until ctx ends.
func (b *commandBook) send(ctx context.Context, js jetstream.JetStream, macs []string) {
	tick := time.NewTicker(commandInterval)
	defer tick.Stop()
	for k := 0; k < maxCommands*len(macs); k++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		mac, number := macs[k%len(macs)], k/len(macs)
		payload := fmt.Sprintf(`{"power-flag":%d,"period":%d}`, number%2, number/2+1)
		c := &sentCommand{id: fmt.Sprintf("soak-%d-%d", b.run, k), issued: time.Now()}
		b.mu.Lock()
		b.sent[mac+payload] = c
		b.mu.Unlock()
		bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
		msg := nats.NewMsg("f2.command." + mac + ".access-control-mode.3.strike-1")
		msg.Data = []byte(payload)
		msg.Header[outcome.HeaderWait] = []string{"true"} // or few would come near the controllers that are cut off
		_, err := js.PublishMsg(bounded, msg, jetstream.WithMsgID(c.id))
		cancel()
		b.mu.Lock()
		c.stored = err == nil
		b.mu.Unlock()
	}
}

// settle reads the outcomes from RESULT.
func (b *commandBook) settle(ctx context.Context, js jetstream.JetStream) error {
	byID := map[string]*sentCommand{}
	b.mu.Lock()
	for _, c := range b.sent {
		c.outcomes = nil
		byID[c.id] = c
	}
	b.mu.Unlock()
	return scan(ctx, js, "RESULT", func(m jetstream.Msg, _ uint64) error {
		var read struct {
			ID, Outcome string
			Issued      time.Time // when COMMANDS stored it
		}
		if err := json.Unmarshal(m.Data(), &read); err != nil {
			return fmt.Errorf("reading a result: %w", err)
		}
		c := byID[read.ID]
		if c == nil {
			return nil
		}
		c.issued = read.Issued
		if read.Outcome != "sent" {
			c.outcomes = append(c.outcomes, read.Outcome)
		}
		return nil
	})
}

// answered reads the outcomes until each command has one.
func (b *commandBook) answered(ctx context.Context, js jetstream.JetStream) error {
	return within(ctx, commandTime, "each command has an outcome", func(ctx context.Context) bool {
		if b.settle(ctx, js) == nil && b.totals(0, nil).Unanswered == 0 {
			return true
		}
		hold(ctx, 5*time.Second)
		return false
	})
}

// commandTime is how long the outcome of a command can take: its bridge dies, and the
// consumer of COMMANDS waits for 3 minutes before it delivers again.
const commandTime = 4 * time.Minute

// CommandTotals says what became of the commands.
type CommandTotals struct {
	Sent       int            `json:"sent"` // COMMANDS acknowledged them
	Outcomes   map[string]int `json:"outcomes"`
	Unanswered int            `json:"unanswered"` // no outcome
	Doubled    int            `json:"doubled"`    // carried out more than once
	Late       int            `json:"late"`       // carried out after their time
	Held       int            `json:"held"`       // likewise, when the controllers' network worked again; not a fault
	Untrue     int            `json:"untrue"`     // refused or expired, and yet carried out; or confirmed, and the state not reached
	Examples   []string       `json:"examples,omitempty"`
}

// faults is how many commands break the contract.
func (t CommandTotals) faults() int { return t.Unanswered + t.Doubled + t.Late + t.Untrue }

// totals judges each command. maxAge is how old one may be when it is carried out, if no outage of the
// controllers' network held it up.
func (b *commandBook) totals(maxAge time.Duration, outages []outage) CommandTotals {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := CommandTotals{Outcomes: map[string]int{}, Doubled: len(b.late)}
	reached := map[string][]time.Time{}
	for key, c := range b.sent {
		reached[stateOf(key)] = append(reached[stateOf(key)], c.carriedOut...)
	}
	for key, c := range b.sent {
		before := t.faults()
		c.judge(&t, maxAge, reached[stateOf(key)], outages)
		if t.faults() > before && len(t.Examples) < maxExamples {
			t.Examples = append(t.Examples, c.String())
		}
	}
	return t
}

// lateReport is how long the bridge lets a report replace the outcome "unknown".
const lateReport = 10 * time.Minute

// stateOf is the controller of a command and the state that it asks for: the key of sent up to the period.
func stateOf(key string) string {
	state, _, _ := strings.Cut(key, ",")
	return state
}

func (c *sentCommand) String() string {
	var ages []time.Duration
	for _, at := range c.carriedOut {
		ages = append(ages, at.Sub(c.issued))
	}
	return fmt.Sprintf("%s issued %s, stored: %t, outcomes %v, carried out after %v", c.id, c.issued.UTC().Format(time.RFC3339Nano), c.stored, c.outcomes, ages)
}

// judge judges one command. reached is when the component was commanded into the state that it asks for.
func (c *sentCommand) judge(t *CommandTotals, maxAge time.Duration, reached []time.Time, outages []outage) {
	if len(c.carriedOut) > 1 {
		t.Doubled++
	}
	for _, at := range c.carriedOut {
		switch {
		case at.Sub(c.issued) <= maxAge:
		case slices.ContainsFunc(outages, func(o outage) bool { return c.heldBy(o, at, maxAge) }):
			t.Held++
		default:
			t.Late++
		}
	}
	if !c.stored {
		return
	}
	t.Sent++
	if len(c.outcomes) == 0 {
		t.Unanswered++
		return
	}
	last := c.outcomes[len(c.outcomes)-1]
	t.Outcomes[last]++
	switch last {
	case "refused", "expired":
		if len(c.carriedOut) > 0 {
			t.Untrue++
		}
	case "confirmed":
		// The report tells the state, not the command that led to it. If one of two commands for the same state was
		// lost on its way to a controller that was not connected, the report after the other confirms both.
		until := c.issued.Add(maxAge)
		if len(c.outcomes) > 1 {
			until = until.Add(lateReport)
		}
		if !slices.ContainsFunc(reached, func(at time.Time) bool { return at.After(c.issued) && at.Before(until) }) {
			t.Untrue++
		}
	}
}

// outage is a time in which the network between the broker and the controllers carried nothing.
type outage struct{ from, until time.Time }

// heldBy reports whether an outage held up a command that was carried out at a time: the broker had
// written it in time. The README states this limit, and that the sender learns that the outcome is
// unknown.
func (c *sentCommand) heldBy(o outage, at time.Time, maxAge time.Duration) bool {
	const delivery = 2 * time.Second // after the outage
	return len(c.outcomes) > 0 && c.outcomes[0] == "unknown" &&
		o.from.Before(c.issued.Add(maxAge)) && at.After(o.from) && at.Before(o.until.Add(delivery))
}
