package payload

// The reasons for which a body is refused. The set is bounded: a reason can be
// a metric's label and a token of a dead letter's subject.
const (
	ReasonTooLarge       = "too_large"        // more bytes than Parser.MaxSize
	ReasonEmptyPayload   = "empty_payload"    // empty, and not a command
	ReasonBadUTF8        = "bad_utf8"         // bytes that are not UTF-8
	ReasonBadJSON        = "bad_json"         // not JSON, or more than one value
	ReasonDuplicateName  = "duplicate_name"   // a name twice in an object, or a label twice but for case
	ReasonNotAnObject    = "not_an_object"    // JSON, but the component's body is an object
	ReasonTooDeep        = "too_deep"         // nested deeper than MaxDepth
	ReasonTooManyMembers = "too_many_members" // more than MaxMembers in one object or array
	ReasonBadTimestamp   = "bad_timestamp"    // not a form that is read, not a time, or not in 1970..2200
	ReasonMissingData    = "missing_data"     // a sensor without "data" or numbers, or empty "data"
	ReasonMissingField   = "missing_field"    // an event or command without the member it is known by
	ReasonBadHex         = "bad_hex"          // a sensor's "data" is not hex
	ReasonBadField       = "bad_field"        // a member's name, type or value is not one that is understood
	ReasonBadNumber      = "bad_number"       // beyond a float64's range, or too long
	ReasonNULCharacter   = "nul_character"    // \u0000, which PostgreSQL does not store
	ReasonDataTooLong    = "data_too_long"    // a reader's data exceed MaxReaderData
	ReasonDataAndNumbers = "data_and_numbers" // a sensor with both "data" and numbers
	ReasonUnknownCommand = "unknown_command"  // the component takes no such command
)

// Error says why a body was refused. It does not hold any part of the body.
type Error struct {
	Reason string // one of the Reason constants
}

// details says for each reason what is wrong, for whoever reads the dead letter.
var details = map[string]string{
	ReasonTooLarge:       "more bytes than the limit",
	ReasonEmptyPayload:   "empty, which only a command may be",
	ReasonBadUTF8:        "bytes that are not UTF-8",
	ReasonBadJSON:        "not JSON, or more than one value",
	ReasonDuplicateName:  "a name stands twice in one object",
	ReasonNotAnObject:    "JSON, but not an object",
	ReasonTooDeep:        "nested too deep",
	ReasonTooManyMembers: "too many members in one object or array",
	ReasonBadTimestamp:   "the timestamp is not YYYY-MM-DD HH:MM:SS[.ffffff] nor RFC 3339, or not in the years 1970 to 2200",
	ReasonMissingData:    "a sensor without data and without numbers",
	ReasonMissingField:   "the member is missing that an event or command is known by",
	ReasonBadHex:         "the data are not pairs of hex digits",
	ReasonBadField:       "a member's name, type or value is not one that is understood",
	ReasonBadNumber:      "a number beyond the range of a float64, or too long",
	ReasonNULCharacter:   "\\u0000, which PostgreSQL does not store",
	ReasonDataTooLong:    "a reader's data are longer than 1023 characters",
	ReasonDataAndNumbers: "a sensor with both data and numbers",
	ReasonUnknownCommand: "the component takes no such command",
}

// Error is the reason after the package's name, and what it means.
func (e *Error) Error() string { return "payload: " + e.Reason + ": " + details[e.Reason] }
