package alert

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// Observation is what one message says about a rule's condition.
type Observation struct {
	Event event.ID
	At    time.Time // the message's own time
	// Silence says that the component has sent nothing since Event, which itself may have
	// changed the alarm.
	Silence bool
	// Holds reports whether the condition holds, Clears whether it has ended. With hysteresis,
	// or if the message does not say, both are false.
	Holds, Clears bool
	// Due is until when the condition has to hold, if it does not hold already.
	Due time.Time
	// Identity, Severity, Summary and Detail describe an alarm that begins.
	Identity Identity
	Severity Severity
	Summary  string
	Detail   string
}

// Observe returns the entries that follow from an observation: none, one, or two if the
// condition held until it was due and has ended since. An observation that is not later than
// the last one that changed the alarm changes nothing, so a replay is harmless.
func (e Entry) Observe(o *Observation) (changes []Entry) {
	if order := bytes.Compare(o.Event[:], e.Event[:]); order < 0 || order == 0 && !o.Silence {
		return nil
	}
	if next, ok := e.Advance(o.At); ok && e.Status == Pending {
		changes = append(changes, next)
		e = next
	}
	switch {
	case e.Status == Raised && o.Clears:
		e.Status, e.Time, e.ClearedAt, e.Event = Cleared, o.At, o.At, o.Event
	case e.Status == Pending && !o.Holds && o.Clears:
		e.Status, e.Time, e.Event = Idle, o.At, o.Event
	case e.Status != Raised && e.Status != Pending && o.Holds:
		e = e.begin(o)
	default:
		return changes
	}
	return append(changes, e)
}

// begin is a new life of the alarm. What a person shelved stays shelved.
func (e Entry) begin(o *Observation) Entry {
	next := Entry{
		Status: Pending, Time: o.At, Severity: o.Severity, Summary: o.Summary, Identity: o.Identity, Detail: o.Detail,
		Since: o.At, Due: o.Due, Event: o.Event, Shelved: e.Shelved,
	}
	next.Occurrence = digest(next.ID(), o.Event.String(), o.At.UTC().Format(time.RFC3339Nano))
	if !o.Due.After(o.At) {
		next.Status, next.RaisedAt, next.Due = Raised, o.At, time.Time{}
	}
	return next
}

// Advance returns what the passing of time makes of the alarm: a pending one that is due is
// raised, and one whose shelf has ended is no longer shelved.
func (e Entry) Advance(now time.Time) (next Entry, changed bool) {
	if e.Status == Pending && !now.Before(e.Due) {
		e.Status, e.Time, e.RaisedAt, e.Due = Raised, e.Due, e.Due, time.Time{}
		return e, true
	}
	if e.Shelved != nil && !now.Before(e.Shelved.Until) {
		e.Time, e.Shelved = e.Shelved.Until, nil
		return e, true
	}
	return e, false
}

// Retire returns what becomes of an alarm whose rule no longer exists.
func (e Entry) Retire(now time.Time) []Entry {
	switch e.Status {
	case Raised:
		e.Status, e.Time, e.ClearedAt, e.Detail = Cleared, now, now, "the rule was removed"
	case Pending:
		e.Status, e.Time = Idle, now
	default:
		return nil
	}
	return []Entry{e}
}

// Notice is what a service says of an alarm of its own.
type Notice struct {
	Identity Identity
	Severity Severity
	Detail   string
	Since    time.Time // when the service raised it
	Raised   bool      // false: it is cleared
}

// Follow returns the entries that follow from a service's report. A report that comes again
// changes nothing.
func (e Entry) Follow(r *Notice, now time.Time) []Entry {
	switch {
	case !r.Raised && e.Status == Raised:
		e.Status, e.Time, e.ClearedAt = Cleared, now, now
		return []Entry{e}
	case !r.Raised, e.Status == Raised, e.Status == Cleared && !r.Since.After(e.Since):
		return nil
	}
	o := &Observation{At: r.Since, Due: r.Since, Severity: r.Severity, Identity: r.Identity, Detail: r.Detail}
	return []Entry{e.begin(o)}
}

// Errors of what a person asks for.
var (
	ErrNotRaised    = errors.New("the alarm is not raised")
	ErrAcknowledged = errors.New("the alarm is acknowledged already")
	ErrNotShelved   = errors.New("the alarm is not shelved")
)

// Acknowledge returns the alarm as acknowledged. An alarm that was cleared before anybody saw it
// can be acknowledged, too.
func (e Entry) Acknowledge(by, comment string, now time.Time) (Entry, error) {
	switch {
	case e.Status != Raised && e.Status != Cleared:
		return e, ErrNotRaised
	case e.Acknowledged != nil:
		return e, fmt.Errorf("%w: by %s at %s", ErrAcknowledged, e.Acknowledged.By, e.Acknowledged.At.Format(time.RFC3339))
	}
	e.Time, e.Acknowledged = now, &Acknowledgement{By: by, At: now, Comment: comment}
	return e, nil
}

// Shelve returns the alarm as shelved until a time.
func (e Entry) Shelve(by, comment string, now, until time.Time) (Entry, error) {
	if !until.After(now) {
		return e, fmt.Errorf("shelving until %s: it must be in the future", until.Format(time.RFC3339))
	}
	e.Time, e.Shelved = now, &Shelf{By: by, At: now, Until: until, Comment: comment}
	return e, nil
}

// Unshelve returns the alarm as not shelved.
func (e Entry) Unshelve(now time.Time) (Entry, error) {
	if e.Shelved == nil {
		return e, ErrNotShelved
	}
	e.Time, e.Shelved = now, nil
	return e, nil
}
