package frame

// The reasons for which a frame or a field is refused. The set is bounded: a
// reason can be a metric's label and a token of a dead letter's subject.
const (
	ReasonBadHex          = "bad_hex"          // not pairs of hex digits
	ReasonUnknownEncoding = "unknown_encoding" // no such encoding, or order for it
	ReasonBadOffset       = "bad_offset"       // below 0
	ReasonBadLength       = "bad_length"       // does not fit the encoding
	ReasonBadDecimals     = "bad_decimals"     // not -22..22, or not 0 for text
	ReasonOutOfRange      = "out_of_range"     // the frame ends before the field
	ReasonNotANumber      = "not_a_number"     // NaN or an infinity
	ReasonBadBCD          = "bad_bcd"          // a half-byte above 9
	ReasonBadASCII        = "bad_ascii"        // neither printable ASCII nor tab, CR or LF
	ReasonOverflow        = "overflow"         // Encode: beyond the encoding's range
	ReasonWrongType       = "wrong_type"       // Encode: text for a number or a number for text
)

// Error says why a frame, a field or an encoding's name was refused. It does
// not hold the frame's bytes.
type Error struct {
	Reason string // one of the Reason constants
}

// details says for each reason what is wrong, for whoever reads the dead letter.
var details = map[string]string{
	ReasonBadHex:          "not pairs of hex digits",
	ReasonUnknownEncoding: "\"DataEncoding\" names no known encoding, or an order of bytes that it does not have",
	ReasonBadOffset:       "\"Offset\" is below 0",
	ReasonBadLength:       "\"Length\" does not fit the encoding",
	ReasonBadDecimals:     "\"Decimals\" is not -22 to 22, or not 0 for text",
	ReasonOutOfRange:      "the frame ends before the field does: see \"Offset\" and \"Length\"",
	ReasonNotANumber:      "the value is NaN or an infinity",
	ReasonBadBCD:          "a half-byte above 9",
	ReasonBadASCII:        "neither printable ASCII nor tab, CR or LF",
	ReasonOverflow:        "the value is beyond the encoding's range",
	ReasonWrongType:       "text for a number, or a number for text",
}

// Error is the reason after the package's name, and what it means.
func (e *Error) Error() string { return "frame: " + e.Reason + ": " + details[e.Reason] }
