package simulator

import (
	"sync/atomic"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Report is what a fleet has sent so far. Readings, malformed messages and
// answers to commands are all in Sent and Acknowledged.
type Report struct {
	Sent           int64            // messages written to a connection at least once
	Acknowledged   int64            // messages whose PUBACK came
	Unacknowledged int64            // Sent less Acknowledged
	Retried        int64            // publishes repeated after a connection broke
	Connections    int64            // connections made
	Commands       int64            // commands that controllers carried out
	Repeated       int64            // of those, what the broker marked as sent again
	Answers        int64            // acknowledged answers to commands, and what follows from them
	Components     map[string]int64 // acknowledged readings and events, by kind of component
	Malformed      map[string]int64 // acknowledged malformed messages, by class
	Duration       time.Duration    // since the fleet began to send
}

// tally says as what a message is counted: first the kinds of components, then
// answers, then the classes of malformed messages.
type tally int

const (
	answer         = tally(topic.ExitButtons) + 1
	firstMalformed = answer + 1
)

// counters are those of the whole fleet.
type counters struct {
	sent, retried, connections, commands, repeated atomic.Int64
	acknowledged                                   [int(firstMalformed) + len(classes)]atomic.Int64
}

// Report returns the state of now. It is safe to call at any time.
func (s *Simulator) Report() Report {
	c := &s.counters
	r := Report{
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
			r.Components[topic.Kind(i).String()] = n
		default:
			r.Malformed[classes[t-firstMalformed].name] = n
		}
	}
	r.Sent = c.sent.Load() // after the acknowledged, so that it is not less
	r.Unacknowledged = r.Sent - r.Acknowledged
	r.Duration = s.gate.age()
	return r
}
