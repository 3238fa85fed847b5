// Package frame decodes and encodes the bytes of an RS-485 (Modbus) frame (section 4 of the
// design).
//
// A Field is the place, the encoding and the scale of a data point in a frame. Decode and Encode
// are inverse to each other. Scaling is exact: the result is the float64 nearest to
// raw / 10^Decimals, without intermediate rounding, so 2552 with 2 decimals is 25.52.
//
// ReadResponse finds out whether a frame is the response of a Modbus RTU device, where its data
// end, and whether its CRC is right. Other frames are only bytes. Offsets count from the frame's
// start in both cases.
//
// The package has no state; all functions are safe for concurrent use.
package frame

import (
	"fmt"
	"math"
)

// Limits of a field.
const (
	// MaxLength is the largest Length of an ASCII field, in bytes: that of the longest Modbus
	// RTU frame.
	MaxLength = 256
	// MaxDecimals is the limit of Decimals in both directions: 10^22 is the largest power of
	// ten that a float64 holds exactly, so that one division is correctly rounded.
	MaxDecimals = 22
)

// Field is the place, encoding and scale of one data point in a frame.
type Field struct {
	Encoding Encoding
	Offset   int // bytes from the frame's start, at least 0
	Length   int // bytes; must fit the encoding, see Validate
	// Decimals, -22..22, divides a number by 10^Decimals. A negative one multiplies, for
	// example for a meter that counts hundreds. For text it must be 0.
	Decimals int
}

// FieldValue is the value of a field: a finite number, or text for ASCII.
type FieldValue struct {
	Number float64
	Text   string
	IsText bool
}

// End returns the offset after the field's last byte.
func (f Field) End() int { return f.Offset + f.Length }

// Validate returns an error if the field cannot be decoded from any frame. Length must be the
// encoding's Size. If that is 0, Length must be 1..8 for Bool, BitN (and include bit N) and BCD,
// 1..256 for ASCII, and even with the orders CDAB and BADC. Errors are of type *Error.
func (f Field) Validate() error {
	switch {
	case f.Encoding.kind == kindNone:
		return refuse(ReasonUnknownEncoding, "no encoding; known: %s", known)
	case f.Offset < 0:
		return refuse(ReasonBadOffset, "\"Offset\" is %d; it counts bytes from the frame's start, which is 0", f.Offset)
	case f.Decimals < -MaxDecimals || f.Decimals > MaxDecimals:
		return refuse(ReasonBadDecimals, "\"Decimals\" is %d; it must be -%d to %d", f.Decimals, MaxDecimals, MaxDecimals)
	case f.Encoding.kind == kindASCII && f.Decimals != 0:
		return refuse(ReasonBadDecimals, "\"Decimals\" is %d; it must be 0 for %s", f.Decimals, f.Encoding)
	}
	return f.Encoding.checkLength(f.Length)
}

// Decode returns the field's value in frame, which it does not change or keep. Errors are of
// type *Error: those of Validate, ReasonOutOfRange if the frame ends before the field,
// ReasonNotANumber for NaN and infinities, ReasonBadBCD and ReasonBadASCII.
func (f Field) Decode(frame []byte) (FieldValue, error) {
	b, err := f.slice(frame)
	if err != nil {
		return FieldValue{}, err
	}
	if f.Encoding.kind == kindASCII {
		return decodeText(b, f.Encoding.order)
	}
	n, err := f.decodeNumber(f.Encoding.order.load(b))
	if err != nil {
		return FieldValue{}, err
	}
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return FieldValue{}, refuse(ReasonNotANumber, "the value is NaN or an infinity")
	}
	return FieldValue{Number: n}, nil
}

// Encode writes v at the field's place in frame, which must be long enough. It does not change
// other bytes, or other bits for BitN. Decode then returns v, or the nearest number that the
// field can hold. After an error frame is unchanged. Errors are of type *Error: those of
// Validate, ReasonOutOfRange as for Decode, ReasonNotANumber, ReasonOverflow for a number out of
// the encoding's range, ReasonWrongType for a number in a text field or text in a number field,
// and ReasonBadASCII.
func (f Field) Encode(frame []byte, v FieldValue) error {
	b, err := f.slice(frame)
	if err != nil {
		return err
	}
	if v.IsText != (f.Encoding.kind == kindASCII) {
		return refuse(ReasonWrongType, "text for a number, or a number for text")
	}
	if v.IsText {
		return encodeText(b, v.Text, f.Encoding.order)
	}
	if math.IsNaN(v.Number) || math.IsInf(v.Number, 0) {
		return refuse(ReasonNotANumber, "the value is NaN or an infinity")
	}
	u, err := f.encodeNumber(v.Number, f.Encoding.order.load(b))
	if err != nil {
		return err
	}
	f.Encoding.order.store(b, u)
	return nil
}

// Raw returns the field's bytes as one unsigned integer, in the encoding's order of bytes and
// not scaled. ok is false if the frame ends before the field, and for fields of more than 8
// bytes.
func (f Field) Raw(frame []byte) (raw uint64, ok bool) {
	b, err := f.slice(frame)
	if err != nil || len(b) > maxWidth {
		return 0, false
	}
	return f.Encoding.order.load(b), true
}

// slice returns the field's bytes.
func (f Field) slice(frame []byte) ([]byte, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	if f.Offset > len(frame) || f.Length > len(frame)-f.Offset {
		return nil, refuse(ReasonOutOfRange, "beyond the frame's %d bytes: %s", len(frame), f.place())
	}
	return frame[f.Offset:f.End()], nil
}

// place returns the field's bytes for errors, counted like "Offset".
func (f Field) place() string { return place(f.Offset, f.Length) }

func place(offset, length int) string {
	if length == 1 {
		return fmt.Sprintf("byte %d", offset)
	}
	return fmt.Sprintf("bytes %d to %d", offset, offset+length-1)
}
