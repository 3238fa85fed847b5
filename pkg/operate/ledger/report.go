package ledger

import (
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Report is the result of an audit. All counts are of messages unless they say
// otherwise.
type Report struct {
	AskedSince time.Time `json:"asked_since,omitzero"`
	// Since is AskedSince, or later where a stream no longer holds what was
	// before: Limits name those streams, and nothing is said of that time.
	Since  time.Time   `json:"since,omitzero"`
	Until  time.Time   `json:"until"`
	MAC    topic.MAC   `json:"mac,omitempty"`
	Limits []HeldSince `json:"limits,omitempty"`

	// Total holds Received = Written + DeadLettered + Copies + Retained + Pending +
	// Missing.
	Total   Counts             `json:"total"`
	Stages  []Stage            `json:"stages"`  // bridge, decoder, writer
	Devices []ControllerCounts `json:"devices"` // by MAC

	Letters   []LetterCounts  `json:"dead_letters,omitempty"` // by stage and reason
	Parked    uint64          `json:"parked"`                 // of the pending: their controller's metadata cannot be looked up
	Positions []StagePosition `json:"positions"`
	Rows      Rows            `json:"rows"`
	Commands  CommandCounts   `json:"commands"`

	// Missing are the messages whose trail ends after RAW. Total.Missing is how many
	// there are, those that Vanished included.
	Missing []Missing `json:"missing,omitempty"`
	// Vanished are the messages that RAW took and does not hold any more.
	Vanished Vanished `json:"vanished"`
	// Faults are the rows that are absent or differ; Rows tells how many.
	Faults []RowFault `json:"row_faults,omitempty"`

	Acknowledged Acknowledged `json:"acknowledged"`
	Unexplained  Unexplained  `json:"unexplained"`
}

func newReport(mac topic.MAC) *Report {
	return &Report{MAC: mac, Stages: []Stage{{Name: stream.StageBridge}, {Name: stream.StageDecoder}, {Name: stream.StageWriter}}}
}

// Balanced is true if nothing is missing: every message is accounted for, every
// row holds what was decoded, every acknowledged message was received, every command
// has an outcome, and no outcome lacks its message. What is pending is no imbalance.
func (r *Report) Balanced() bool {
	t := &r.Total
	return t.Missing == 0 && t.Received == t.Written+t.DeadLettered+t.Copies+t.Retained+t.Pending &&
		r.Rows.Absent == 0 && r.Rows.Differing == 0 && r.Commands.Missing == 0 &&
		r.Acknowledged.NeverReceived == 0 && r.Unexplained.Total == 0
}

// HeldSince says that a stream holds everything only from a moment on.
type HeldSince struct {
	Stream string    `json:"stream"`
	From   time.Time `json:"from"`
}

// Counts are the fates of messages.
type Counts struct {
	Received     uint64 `json:"received"` // from the broker
	Decoded      uint64 `json:"decoded"`
	Written      uint64 `json:"written"` // all values that were not refused are rows
	Partial      uint64 `json:"partial"` // of the written: a part of the message was refused
	DeadLettered uint64 `json:"dead_lettered"`
	Copies       uint64 `json:"copies"`   // the broker's redeliveries, which the bridge dropped
	Retained     uint64 `json:"retained"` // retained copies, which the bridge dropped
	Pending      uint64 `json:"pending"`
	Missing      uint64 `json:"missing"`
}

// Stage holds Received = Passed + DeadLettered + Copies + Retained + Pending +
// Missing.
type Stage struct {
	Name         string `json:"name"`
	Received     uint64 `json:"received"` // on the stream that it reads; of the bridge from the broker
	Passed       uint64 `json:"passed"`   // on to the next stage
	DeadLettered uint64 `json:"dead_lettered"`
	// Copies are what the bridge dropped, or further messages of one place in RAW on
	// DECODED.
	Copies   uint64 `json:"copies"`
	Retained uint64 `json:"retained"` // the bridge's alone
	Pending  uint64 `json:"pending"`
	Missing  uint64 `json:"missing"`
}

// ControllerCounts is the share of one controller. MAC is "unknown" for what a stage
// refused without knowing whose it is, and for what vanished from RAW.
type ControllerCounts struct {
	MAC topic.MAC `json:"mac"`
	Counts
}

// LetterCounts are the dead letters of one reason. Messages add up to the dead
// letters of the total.
type LetterCounts struct {
	Stage    string `json:"stage"`
	Reason   string `json:"reason"`
	Messages uint64 `json:"messages"` // that end here
	Parts    uint64 `json:"parts"`    // letters of single data points, in part of messages that were written
	// InParts are those of Messages of which there are only Parts and no
	// DECODED message: that no data point was left is the decoder's word.
	InParts uint64 `json:"in_parts,omitempty"`
	// NotKept are those of Messages whose letter DEAD_LETTER no longer keeps: that it
	// is theirs is an inference from the number of such letters of the controller.
	NotKept uint64 `json:"not_kept,omitempty"`
}

// StagePosition is where a stage stands in the stream that it reads.
type StagePosition struct {
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
	Exists   bool   `json:"exists"`
	// AckFloor is the sequence up to which everything is acknowledged.
	AckFloor    uint64 `json:"ack_floor"`
	Delivered   uint64 `json:"delivered"` // the highest sequence
	InFlight    int    `json:"in_flight"` // delivered, not acknowledged
	Redelivered int    `json:"redelivered"`
	Undelivered uint64 `json:"undelivered"`
}

// Rows counts rows of measurement and device_event, one for each value or
// event on DECODED.
type Rows struct {
	Expected  uint64 `json:"expected"`
	Found     uint64 `json:"found"`     // with the same value
	History   uint64 `json:"history"`   // in measurement_history: another value came first, or replaced it
	Refused   uint64 `json:"refused"`   // not there, or with another value, by a dead letter of the writer
	NotKept   uint64 `json:"not_kept"`  // the same, by a letter that is no longer kept
	Pending   uint64 `json:"pending"`   // the writer has not processed it yet
	Absent    uint64 `json:"absent"`    // without a reason
	Differing uint64 `json:"differing"` // another value, without a reason
}

// CommandCounts counts commands. Sent = Refused + Expired + Delivered + Confirmed +
// Unknown + UnderWay + NotKept + Missing.
type CommandCounts struct {
	Sent      uint64 `json:"sent"`
	Refused   uint64 `json:"refused"`
	Expired   uint64 `json:"expired"`
	Delivered uint64 `json:"delivered"`
	Confirmed uint64 `json:"confirmed"`
	Unknown   uint64 `json:"unknown"`
	UnderWay  uint64 `json:"under_way"`
	NotKept   uint64 `json:"not_kept"` // RESULT keeps the last outcomes of each component
	Missing   uint64 `json:"missing"`  // the bridge acknowledged them without an outcome, or they vanished
	// MissingSequences are where they are, or were, in COMMANDS.
	MissingSequences []uint64 `json:"missing_sequences,omitempty"`
}

// Missing is a message whose trail ends.
type Missing struct {
	ID       event.ID  `json:"id"`
	MAC      topic.MAC `json:"mac"`
	Stage    string    `json:"stage"`    // that acknowledged it without an outcome
	Stream   string    `json:"stream"`   // that holds it last
	Sequence uint64    `json:"sequence"` // there
}

// Vanished are messages that RAW stored and that were removed from between others.
type Vanished struct {
	Messages uint64 `json:"messages"`
	// Outcomes are what DECODED and DEAD_LETTER hold of them.
	Outcomes uint64 `json:"outcomes"`
	Listed   []Span `json:"listed,omitempty"`
}

// Span is sequences of RAW, both included.
type Span struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// RowFault is a row that is absent, or holds another value than DECODED.
type RowFault struct {
	ID          event.ID  `json:"id"`
	DeviceID    int32     `json:"device_id,omitempty"` // of a measurement
	DataPointID int32     `json:"datapoint_id,omitempty"`
	Time        time.Time `json:"time"`
	Differs     bool      `json:"differs"` // else it is absent
}

// Acknowledged compares what is claimed to have been acknowledged with what was
// received. Claimed = Received + Elsewhere + NotKept + NeverReceived.
type Acknowledged struct {
	Claimed       uint64 `json:"claimed"`
	Received      uint64 `json:"received"`
	Elsewhere     uint64 `json:"elsewhere"` // received, but outside the interval or by another controller
	NotKept       uint64 `json:"not_kept"`  // as many of the bridge's letters are no longer kept
	NeverReceived uint64 `json:"never_received"`
	// More counts messages that were received more often than they were acknowledged:
	// their sender repeated them.
	More uint64 `json:"more"`
	// Digests are some of those of NotKept and NeverReceived.
	Digests []event.ID `json:"digests,omitempty"`
}

// Unexplained are outcomes of the interval that no message explains, and
// messages on DECODED that cannot be read.
type Unexplained struct {
	Total  uint64      `json:"total"`
	Listed []Successor `json:"listed,omitempty"`
}

// Successor is a message on DECODED or DEAD_LETTER.
type Successor struct {
	ID       event.ID `json:"id"`
	Stream   string   `json:"stream"`
	Sequence uint64   `json:"sequence"`
}
