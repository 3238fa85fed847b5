package simulator

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Totals is what a fleet has sent so far. Sent and Acknowledged include readings,
// malformed messages and answers to commands.
type Totals struct {
	Sent           int64            // messages written to a connection at least once
	Acknowledged   int64            // messages whose PUBACK came
	Unacknowledged int64            // Sent less Acknowledged
	Retried        int64            // publishes repeated after a lost connection
	Connections    int64            // connections made
	Commands       int64            // commands that controllers carried out
	Repeated       int64            // of those, the ones that the broker marked as sent again
	Answers        int64            // acknowledged answers to commands, and the reports that follow from them
	Components     map[string]int64 // acknowledged readings and events, by kind of component
	Malformed      map[string]int64 // acknowledged malformed messages, by class
	Duration       time.Duration    // since the fleet began to send
}

// WriteTo writes the report for people.
func (r *Totals) WriteTo(w io.Writer) (int64, error) {
	rate := 0.0
	if s := r.Duration.Seconds(); s > 0 {
		rate = float64(r.Acknowledged) / s
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "sent %d, acknowledged %d, unacknowledged %d, sent again %d; %s, %.0f messages/s\n",
		r.Sent, r.Acknowledged, r.Unacknowledged, r.Retried, r.Duration.Round(time.Millisecond), rate)
	for _, part := range []map[string]int64{r.Components, r.Malformed} {
		for _, name := range slices.Sorted(maps.Keys(part)) {
			fmt.Fprintf(&b, "  %-24s %d\n", name, part[name])
		}
	}
	return b.WriteTo(w)
}

// tally is how a message is counted: first the kinds of components, then answers, then
// the classes of malformed messages.
type tally int

const (
	answer         = tally(topic.ExitButtons) + 1
	firstMalformed = answer + 1
)

// counters count for the whole fleet.
type counters struct {
	sent, retried, connections, commands, repeated atomic.Int64
	acknowledged                                   [int(firstMalformed) + len(classes)]atomic.Int64
}

func (c *counters) allAcknowledged() (n int64) {
	for i := range c.acknowledged {
		n += c.acknowledged[i].Load()
	}
	return n
}

// Report returns the current state. It is safe to call at any time.
func (s *Simulator) Report() Totals {
	c := &s.counters
	r := Totals{
		Retried: c.retried.Load(), Connections: c.connections.Load(), Commands: c.commands.Load(),
		Repeated:   c.repeated.Load(),
		Answers:    c.acknowledged[answer].Load(),
		Components: map[string]int64{}, Malformed: map[string]int64{},
	}
	for i := range c.acknowledged {
		n := c.acknowledged[i].Load()
		r.Acknowledged += n
		switch t := tally(i); {
		case n == 0 || t == answer:
		case t < answer:
			r.Components[topic.ComponentKind(i).String()] = n
		default:
			r.Malformed[classes[t-firstMalformed].name] = n
		}
	}
	r.Sent = c.sent.Load() // read last, so that it is not less than Acknowledged
	r.Unacknowledged = r.Sent - r.Acknowledged
	r.Duration = s.gate.age()
	return r
}
