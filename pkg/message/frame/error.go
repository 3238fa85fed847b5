package frame

import "fmt"

// The reasons for which a frame or a field is refused. The set is bounded: a
// reason can be a metric's label and a token of a dead letter's subject.
const (
	ReasonBadHex          = "bad_hex"          // not pairs of hex digits
	ReasonUnknownEncoding = "unknown_encoding" // no such encoding, or not with this order
	ReasonBadOffset       = "bad_offset"       // negative
	ReasonBadLength       = "bad_length"       // does not fit the encoding
	ReasonBadDecimals     = "bad_decimals"     // not -22..22, or not 0 for text
	ReasonOutOfRange      = "out_of_range"     // the frame's data end before the field
	ReasonNotANumber      = "not_a_number"     // NaN or an infinity
	ReasonBadBCD          = "bad_bcd"          // a half-byte above 9
	ReasonBadASCII        = "bad_ascii"        // neither printable ASCII nor tab, CR or LF
	ReasonOverflow        = "overflow"         // Encode: beyond the encoding's range
	ReasonWrongType       = "wrong_type"       // Encode: text for a number or a number for text

	ReasonModbusException = "modbus_exception" // the device responded with an exception
	ReasonShortAnswer     = "short_answer"     // fewer bytes than the byte count says
	ReasonEchoedRequest   = "echoed_request"   // the request, instead of the response or before it
	ReasonShiftedFrame    = "shifted_frame"    // the response does not start at the frame's start
	ReasonWrongCRC        = "wrong_crc"        // a wrong or no CRC, if the CRC is required
)

// Error is why a frame, a field or an encoding's name was refused.
type Error struct {
	Reason string // one of the Reason constants
	// Detail says what is wrong, where, and what would be right. It may quote metadata, and
	// contains no bytes of a frame.
	Detail string
}

// Error returns the detail.
func (e *Error) Error() string { return e.Detail }

func refuse(reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
