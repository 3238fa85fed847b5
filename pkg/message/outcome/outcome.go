// Package outcome defines the format of messages on the RESULT stream: the outcomes of
// commands. The bridge writes them; the sender of the command, the ledger and the audit trail
// read them. A command that a person may not send is on RESULT, too, as refused and without
// a sequence: it never was on COMMANDS.
//
// A command has one final outcome. Only Unknown is not final: after a late report of the
// controller, Confirmed follows. Sent is not an outcome but the intent. It is on disk before
// the command is published, so that a bridge that was killed does not send the command again.
package outcome

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Headers of a command. Its id is in nats.MsgIdHdr.
const (
	// HeaderPerson is the name of the person who sends the command, as its sender states it.
	HeaderPerson = "F2-Person"
	// HeaderWait is "true" on a command that may wait at the broker for a controller that is
	// not connected. Without it such a command is refused.
	HeaderWait = "F2-Wait"
)

// Headers of a RESULT message, for readers that do not parse the body.
const (
	// HeaderSequence is the command's sequence in COMMANDS.
	HeaderSequence = "F2-Command-Sequence"
	// HeaderOutcome is the Outcome.
	HeaderOutcome = "F2-Outcome"
)

// Outcome is the outcome of a command.
type Outcome string

// The outcomes, and the intent.
const (
	Sent      Outcome = "sent"      // not an outcome yet: the bridge is about to publish it
	Refused   Outcome = "refused"   // not published
	Expired   Outcome = "expired"   // not carried out in time, and never will be
	Delivered Outcome = "delivered" // the broker accepted it and the controller has sent something since, but no report
	Confirmed Outcome = "confirmed" // the controller reported the component's state
	Unknown   Outcome = "unknown"   // it may have been carried out; it is never sent again
)

// Final reports whether no other outcome can follow o.
func (o Outcome) Final() bool { return o != Sent && o != Unknown }

const (
	commandPrefix = "f2.command."
	resultPrefix  = "f2.result."
	deniedPrefix  = "f2.result.denied."
)

// Subject returns the subject of a command's outcomes:
// f2.result.<mac>.<mode>.<connector>.<component>[.<verb>].
func Subject(command string) string {
	return resultPrefix + strings.TrimPrefix(command, commandPrefix)
}

// Result is one message of RESULT.
type Result struct {
	Sequence uint64          `json:"-"`                // of the command in COMMANDS; 0: it never was there
	ID       string          `json:"id,omitempty"`     // the command's Nats-Msg-Id, if it had one
	Person   string          `json:"person,omitempty"` // who sent it, if the command says so
	Command  string          `json:"command"`          // the command's subject
	Outcome  Outcome         `json:"outcome"`
	Detail   string          `json:"detail,omitempty"` // never payload contents
	Issued   time.Time       `json:"issued"`           // when COMMANDS stored it
	Sent     time.Time       `json:"sent,omitzero"`    // when the bridge was about to publish it
	At       time.Time       `json:"at"`               // of the outcome
	State    json.RawMessage `json:"state,omitempty"`  // reported by the controller
}

// Msg returns the result as a message. Its Nats-Msg-Id has RESULT store it once. The result
// of a command that never was on COMMANDS has another subject, f2.result.denied.<mac>…, so
// that many of them do not push a component's outcomes out of the stream.
func (r *Result) Msg() (*nats.Msg, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding a result: %w", err)
	}
	m := nats.NewMsg(Subject(r.Command))
	if r.Sequence == 0 {
		m.Subject = deniedPrefix + strings.TrimPrefix(r.Command, commandPrefix)
	}
	m.Data = data
	sequence := strconv.FormatUint(r.Sequence, 10)
	m.Header[HeaderSequence] = []string{sequence}
	m.Header[HeaderOutcome] = []string{string(r.Outcome)}
	m.Header.Set(nats.MsgIdHdr, strings.Join([]string{sequence, strconv.FormatInt(r.Issued.UnixNano(), 36), string(r.Outcome)}, "/"))
	return m, nil
}

// Parse parses a message that Msg returned.
func Parse(header nats.Header, data []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("parsing a result: %w", err)
	}
	sequence, err := strconv.ParseUint(header.Get(HeaderSequence), 10, 64)
	if err != nil {
		return r, fmt.Errorf("parsing a result: header %s: %w", HeaderSequence, err)
	}
	r.Sequence = sequence
	return r, nil
}
