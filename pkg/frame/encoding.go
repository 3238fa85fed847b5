package frame

import (
	"strconv"
	"strings"
)

// Encoding is how a field's bytes stand for a value: a base type and the order
// of its bytes. It is comparable; the zero Encoding is none, and no field with
// it decodes.
type Encoding struct {
	kind  kind
	bit   uint8 // of kindBit: 0 is the least significant
	order order
}

// kind is an encoding's base type.
type kind uint8

const (
	kindNone kind = iota
	kindInt8
	kindUint8
	kindInt16
	kindUint16
	kindInt32
	kindUint32
	kindInt64
	kindUint64
	kindFloat32
	kindFloat64
	kindBool
	kindBit
	kindBCD
	kindASCII
)

// maxWidth is the greatest length of a field that is read as one integer.
const maxWidth = 8

// kinds gives each kind its canonical name and its size in bytes, 0 where the
// field's Length decides.
var kinds = [...]struct {
	name string
	size int
}{
	kindNone: {"", 0}, kindInt8: {"Int8", 1}, kindUint8: {"Uint8", 1},
	kindInt16: {"Int16", 2}, kindUint16: {"Uint16", 2},
	kindInt32: {"Int32", 4}, kindUint32: {"Uint32", 4},
	kindInt64: {"Int64", 8}, kindUint64: {"Uint64", 8},
	kindFloat32: {"Float32", 4}, kindFloat64: {"Float64", 8},
	kindBool: {"Bool", 0}, kindBit: {"Bit", 0}, kindBCD: {"BCD", 0}, kindASCII: {"ASCII", 0},
}

// ParseEncoding reads an encoding's name in any case: Int8, Uint8, Int16,
// Uint16, Int32, Uint32, Int64, Uint64, Float32, Float64, Bool, Bit0..Bit63,
// BCD or ASCII, then optionally LE, CDAB or BADC with or without a '_' or '-'
// before it. One-byte types and Bool have no registers to swap and take no
// CDAB or BADC. Errors are of type *Error with ReasonUnknownEncoding.
//
// The types: integers are two's complement. Bool is 1 if any bit of the field
// is set. BitN is bit N of the field read as one integer, counted from the
// least significant, so that Bit3 of a two-byte register is in its second byte.
// BCD is unsigned, two digits a byte. ASCII is text, padded with NULs at its
// end; these are not part of the value.
func ParseEncoding(name string) (Encoding, error) {
	base, o := cutOrder(strings.ToUpper(name))
	e, ok := parseBase(base)
	e.order = o
	if !ok || !e.orderFits() {
		return Encoding{}, &Error{Reason: ReasonUnknownEncoding}
	}
	return e, nil
}

// String returns the canonical name, which ParseEncoding reads, or "unknown".
func (e Encoding) String() string {
	if e.kind == kindNone {
		return "unknown"
	}
	name := kinds[e.kind].name
	if e.kind == kindBit {
		name += strconv.Itoa(int(e.bit))
	}
	return name + e.order.String()
}

// Size returns the length of a field in bytes, or 0 where the field's Length
// decides (Bool, BitN, BCD, ASCII).
func (e Encoding) Size() int { return kinds[e.kind].size }

// fits says whether a field of this encoding can have the length.
func (e Encoding) fits(length int) bool {
	if size := e.Size(); size > 0 {
		return length == size
	}
	longest := maxWidth
	if e.kind == kindASCII {
		longest = MaxLength
	}
	switch {
	case length < 1 || length > longest:
		return false
	case e.kind == kindBit && int(e.bit) >= 8*length:
		return false
	}
	return length%2 == 0 || !e.order.swapsRegisters()
}

func (e Encoding) orderFits() bool {
	return !e.order.swapsRegisters() || e.kind != kindBool && e.Size() != 1
}

// cutOrder cuts the order off a name in upper case.
func cutOrder(name string) (string, order) {
	for _, o := range []order{littleEndian, wordSwapped, byteSwapped} {
		base, ok := strings.CutSuffix(name, o.String())
		if !ok {
			continue
		}
		if n := len(base) - 1; n >= 0 && (base[n] == '_' || base[n] == '-') {
			base = base[:n]
		}
		return base, o
	}
	return name, bigEndian
}

func parseBase(name string) (Encoding, bool) {
	for k := kindInt8; k <= kindASCII; k++ {
		if k != kindBit && strings.EqualFold(name, kinds[k].name) {
			return Encoding{kind: k}, true
		}
	}
	digits, ok := strings.CutPrefix(name, "BIT")
	if !ok {
		return Encoding{}, false
	}
	n, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || n >= 8*maxWidth || strconv.FormatUint(n, 10) != digits {
		return Encoding{}, false
	}
	return Encoding{kind: kindBit, bit: uint8(n)}, true
}
