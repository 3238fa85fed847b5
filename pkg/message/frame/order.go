package frame

import "slices"

// order is the order of a value's bytes in a frame. The names are usual for Modbus: ABCD is a
// big-endian value of two registers.
type order uint8

const (
	bigEndian    order = iota // ABCD
	littleEndian              // DCBA
	wordSwapped               // CDAB: registers in reverse order
	byteSwapped               // BADC: the bytes of each register swapped
)

// String returns the suffix of an encoding's name.
func (o order) String() string {
	switch o {
	case littleEndian:
		return "LE"
	case wordSwapped:
		return "CDAB"
	case byteSwapped:
		return "BADC"
	}
	return ""
}

// swapsRegisters reports whether the order needs whole registers of two bytes.
func (o order) swapsRegisters() bool { return o == wordSwapped || o == byteSwapped }

// index returns the place of the value's byte i in n bytes of a frame. Byte 0 is the most
// significant. Every order is its own inverse.
func (o order) index(i, n int) int {
	switch o {
	case littleEndian:
		return n - 1 - i
	case wordSwapped:
		return (n - 1 - i) ^ 1
	case byteSwapped:
		return i ^ 1
	}
	return i
}

// load reads at most 8 bytes as one integer.
func (o order) load(b []byte) uint64 {
	var u uint64
	for i := range b {
		u = u<<8 | uint64(b[o.index(i, len(b))])
	}
	return u
}

// store is the inverse of load: it writes the len(b) low bytes of u.
func (o order) store(b []byte, u uint64) {
	for i := range slices.Backward(b) {
		b[o.index(i, len(b))] = byte(u) //nolint:gosec // the low byte is what is meant
		u >>= 8
	}
}
