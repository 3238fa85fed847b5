// Package frame turns the bytes of an RS-485 (Modbus) frame into values and
// back (section 4 of the design).
//
// A Field says where in a frame a data point lies, how it is encoded and how
// it is scaled. Decode and Encode are inverse to each other. Scaling is exact:
// the result is the float64 nearest to raw / 10^Decimals, not that of a chain
// of rounded steps, so 2552 with 2 decimals is 25.52.
//
// The package knows bytes only: it does not check a frame's CRC, function code
// or byte count, since the metadata's offsets already count from the frame's
// start, and controllers check the CRC on the bus. It holds no state;
// everything in it is safe for concurrent use.
package frame

import "math"

// Limits of a field.
const (
	// MaxLength is the greatest Length of an ASCII field, in bytes: that of
	// the longest Modbus RTU frame.
	MaxLength = 256
	// MaxDecimals bounds Decimals in both directions: 10^22 is the greatest
	// power of ten that a float64 holds exactly, so that one division is
	// correctly rounded.
	MaxDecimals = 22
)

// Field is the place, encoding and scale of one data point in a frame.
type Field struct {
	Encoding Encoding
	Offset   int // bytes from the frame's start, at least 0
	Length   int // bytes; must fit the encoding, see Validate
	// Decimals, -22..22, divides a number by 10^Decimals. Below zero it
	// multiplies, as for a meter that counts hundreds. For text it has to be 0.
	Decimals int
}

// Value is what a field holds: a finite number, or text for ASCII.
type Value struct {
	Number float64
	Text   string
	IsText bool
}

// Validate says whether the field can be decoded from a long enough frame.
// Length has to be the encoding's Size; where that is 0 it is 1..8 for Bool,
// BitN (and hold bit N) and BCD, 1..256 for ASCII, and even with the orders
// CDAB and BADC. Errors are of type *Error.
func (f Field) Validate() error {
	switch {
	case f.Encoding.kind == kindNone:
		return &Error{Reason: ReasonUnknownEncoding}
	case f.Offset < 0:
		return &Error{Reason: ReasonBadOffset}
	case !f.Encoding.fits(f.Length):
		return &Error{Reason: ReasonBadLength}
	case f.Decimals < -MaxDecimals || f.Decimals > MaxDecimals:
		return &Error{Reason: ReasonBadDecimals}
	case f.Encoding.kind == kindASCII && f.Decimals != 0:
		return &Error{Reason: ReasonBadDecimals}
	}
	return nil
}

// Decode returns the field's value in frame, which it does not change or keep.
// Errors are of type *Error: those of Validate, ReasonOutOfRange where the
// frame ends before the field, ReasonNotANumber for NaN and infinities,
// ReasonBadBCD and ReasonBadASCII.
func (f Field) Decode(frame []byte) (Value, error) {
	b, err := f.slice(frame)
	if err != nil {
		return Value{}, err
	}
	if f.Encoding.kind == kindASCII {
		return decodeText(b, f.Encoding.order)
	}
	n, err := f.decodeNumber(f.Encoding.order.load(b))
	if err != nil {
		return Value{}, err
	}
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return Value{}, &Error{Reason: ReasonNotANumber}
	}
	return Value{Number: n}, nil
}

// Encode writes v at the field's place in frame, which has to be long enough,
// and leaves the other bytes as they are (for BitN, the other bits). Decode
// then gives v back if the field can hold v, else the nearest number that it
// can. Errors are of type *Error, and leave frame as it was: those of Validate,
// ReasonOutOfRange as for Decode, ReasonNotANumber, ReasonOverflow for a
// number beyond the encoding's range, ReasonWrongType for a number in a text
// field or text in a number's, and ReasonBadASCII.
func (f Field) Encode(frame []byte, v Value) error {
	b, err := f.slice(frame)
	if err != nil {
		return err
	}
	if v.IsText != (f.Encoding.kind == kindASCII) {
		return &Error{Reason: ReasonWrongType}
	}
	if v.IsText {
		return encodeText(b, v.Text, f.Encoding.order)
	}
	if math.IsNaN(v.Number) || math.IsInf(v.Number, 0) {
		return &Error{Reason: ReasonNotANumber}
	}
	u, err := f.encodeNumber(v.Number, f.Encoding.order.load(b))
	if err != nil {
		return err
	}
	f.Encoding.order.store(b, u)
	return nil
}

// slice returns the field's bytes.
func (f Field) slice(frame []byte) ([]byte, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	if f.Offset > len(frame) || f.Length > len(frame)-f.Offset {
		return nil, &Error{Reason: ReasonOutOfRange}
	}
	return frame[f.Offset : f.Offset+f.Length], nil
}
