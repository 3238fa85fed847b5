package payload

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// The reasons for which a body or a member is refused. The set is bounded: a
// reason can be a metric's label and a token of a dead letter's subject.
const (
	ReasonTooLarge       = "too_large"        // more bytes than Parser.MaxSize
	ReasonEmptyPayload   = "empty_payload"    // empty, and not a command
	ReasonBadUTF8        = "bad_utf8"         // bytes that are not UTF-8
	ReasonBadJSON        = "bad_json"         // not JSON, or more than one value
	ReasonDuplicateName  = "duplicate_name"   // a name twice in an object, or a label twice, ignoring case
	ReasonNotAnObject    = "not_an_object"    // JSON, but the component's body is an object
	ReasonTooDeep        = "too_deep"         // nested deeper than MaxDepth
	ReasonTooManyMembers = "too_many_members" // more than MaxMembers in one object or array
	ReasonBadTimestamp   = "bad_timestamp"    // an unknown format, not a time, or not in 1970..2200
	ReasonMissingData    = "missing_data"     // a sensor without "data" or numbers, or empty "data"
	ReasonMissingField   = "missing_field"    // an event or command without its required member
	ReasonBadHex         = "bad_hex"          // a sensor's "data" is not hex
	ReasonBadField       = "bad_field"        // a member's name, type or value is invalid
	ReasonBadNumber      = "bad_number"       // out of a float64's range, or too long
	ReasonNULCharacter   = "nul_character"    // \u0000, which PostgreSQL does not store
	ReasonDataTooLong    = "data_too_long"    // a reader's data exceed MaxReaderData
	ReasonDataAndNumbers = "data_and_numbers" // a number beside a sensor's "data"
	ReasonUnknownCommand = "unknown_command"  // the component has no such command
)

// Error is why a body was refused.
type Error struct {
	Reason string // one of the Reason constants
	// Detail says what is wrong, where, and what would be right. It may quote up to 64 bytes of
	// a member's name, and contains no value of the body.
	Detail string

	broken bool // the rest of the body cannot be parsed
}

// Error returns the detail.
func (e *Error) Error() string { return e.Detail }

func refuse(reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// Refused is a member of a body that was left out.
type Refused struct {
	Member string // its name, cut to MaxNameLength
	Reason string // one of the Reason constants
	What   string // what is wrong with it, like Error.Detail
}

// Detail returns the member's name and what is wrong with it.
func (r *Refused) Detail() string { return "member " + QuoteName(r.Member) + ": " + r.What }

// leaveOut adds the last member to p.Refused because of err. It returns err if err is not about
// that member alone.
func (s *scanner) leaveOut(p *Payload, err error) error {
	var refused *Error
	if !errors.As(err, &refused) || refused.broken {
		return err
	}
	p.Refused = append(p.Refused, Refused{Member: cut(string(s.name), MaxNameLength), Reason: refused.Reason, What: refused.Detail})
	return nil
}

// mostDetails is how many members the error of nothingLeft names.
const mostDetails = 8

// nothingLeft returns the error of a body whose members were all left out.
func nothingLeft(refused []Refused) *Error {
	details := make([]string, 0, mostDetails)
	for i := range refused[:min(len(refused), mostDetails)] {
		details = append(details, refused[i].Detail())
	}
	if more := len(refused) - mostDetails; more > 0 {
		details = append(details, strconv.Itoa(more)+" more")
	}
	return &Error{Reason: refused[0].Reason, Detail: strings.Join(details, "; ")}
}

// maxQuoted is how many bytes of a name are quoted.
const maxQuoted = 64

// QuoteName returns a member's name for people: in quotes, and cut if it is long.
func QuoteName(name string) string {
	short := cut(name, maxQuoted)
	if short == name {
		return strconv.Quote(name)
	}
	return strconv.Quote(short) + "…"
}

// cut returns as many characters of text as fit into a number of bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// kindOf returns the name of a value's type.
func kindOf(value jsontext.Value) string {
	switch value.Kind() {
	case jsontext.KindNull:
		return "null"
	case jsontext.KindTrue, jsontext.KindFalse:
		return "a boolean"
	case jsontext.KindString:
		return "a string"
	case jsontext.KindNumber:
		return "a number"
	case jsontext.KindBeginObject:
		return "an object"
	case jsontext.KindBeginArray:
		return "an array"
	}
	return "no value"
}
