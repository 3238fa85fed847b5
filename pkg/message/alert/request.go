package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ChangeSubject is where the alarm service takes a ChangeRequest and replies with the Entry that
// follows, or with an error as NATS microservices do.
const ChangeSubject = "f2.alarms.change"

// ChangeAction is what a person does with an alarm.
type ChangeAction string

// The actions.
const (
	Acknowledge ChangeAction = "acknowledge"
	Shelve      ChangeAction = "shelve"
	Unshelve    ChangeAction = "unshelve"
)

// longestComment bounds a comment, in bytes.
const longestComment = 1000

// ChangeRequest is what a person does with an alarm. Who sends it has made sure that the person
// may do so.
type ChangeRequest struct {
	ID      string       `json:"id"` // the alarm's
	Action  ChangeAction `json:"action"`
	Person  string       `json:"person"`
	Comment string       `json:"comment,omitempty"`
	Seconds int          `json:"seconds,omitempty"` // how long to shelve it
}

// ParseChange parses a request.
func ParseChange(data []byte) (r ChangeRequest, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("parsing a change of an alarm: %w", err)
	}
	switch {
	case r.ID == "" || strings.ContainsAny(r.ID, "*> \t\r\n"):
		return r, errors.New("a change of an alarm needs its id")
	case r.Person == "":
		return r, errors.New("a change of an alarm needs the person who makes it")
	case len(r.Comment) > longestComment:
		return r, fmt.Errorf("a comment has at most %d bytes", longestComment)
	}
	return r, nil
}

// Apply returns what the request makes of the alarm.
func (r *ChangeRequest) Apply(e Entry, now time.Time) (Entry, error) {
	switch r.Action {
	case Acknowledge:
		return e.Acknowledge(r.Person, r.Comment, now)
	case Shelve:
		return e.Shelve(r.Person, r.Comment, now, now.Add(time.Duration(r.Seconds)*time.Second))
	case Unshelve:
		return e.Unshelve(now)
	}
	return e, fmt.Errorf("unknown action %q; known: %s, %s, %s", r.Action, Acknowledge, Shelve, Unshelve)
}
