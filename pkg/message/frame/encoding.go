package frame

import (
	"strconv"
	"strings"
)

// Encoding is how a field's bytes encode a value: a base type and the order of its bytes. It is
// comparable. The zero Encoding is invalid.
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
	kindInt24
	kindUint24
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

// maxWidth is the largest length of a field that is read as one integer.
const maxWidth = 8

// kinds has the canonical name and the size in bytes of each kind; with size 0 the field's Length
// decides.
var kinds = [...]struct {
	name string
	size int
}{
	kindNone: {"", 0}, kindInt8: {"Int8", 1}, kindUint8: {"Uint8", 1},
	kindInt16: {"Int16", 2}, kindUint16: {"Uint16", 2},
	kindInt24: {"Int24", 3}, kindUint24: {"Uint24", 3},
	kindInt32: {"Int32", 4}, kindUint32: {"Uint32", 4},
	kindInt64: {"Int64", 8}, kindUint64: {"Uint64", 8},
	kindFloat32: {"Float32", 4}, kindFloat64: {"Float64", 8},
	kindBool: {"Bool", 0}, kindBit: {"Bit", 0}, kindBCD: {"BCD", 0}, kindASCII: {"ASCII", 0},
}

// known lists the encodings, for errors.
const known = "Int8, Uint8, Int16, Uint16, Int24, Uint24, Int32, Uint32, Int64, Uint64, Float32, Float64, " +
	"Bool, Bit0 to Bit63, BCD, ASCII; append LE (DCBA), CDAB or BADC for another byte order"

// ParseEncoding parses an encoding's name in any case, with or without blanks
// around it: Int8, Uint8, Int16, Uint16, Int24, Uint24, Int32, Uint32, Int64,
// Uint64, Float32, Float64, Bool, Bit0..Bit63, BCD or ASCII, then optionally the
// order of bytes, with or without a '_', '-' or blank before it:
//
//	BE                             big-endian, as without it
//	LE                             little-endian
//	ABCD, DCBA, CDAB, BADC         big-endian, little-endian, registers
//	                               swapped, bytes of each register swapped
//	AB, BA; ABC, CBA; ABCDEFGH, …  the same, spelled for 2, 3 and 8 bytes
//
// One-byte types and Bool only have BE and LE. Types of 3 bytes do not have the orders that
// swap registers. Errors are of type *Error with ReasonUnknownEncoding.
//
// The types: integers are two's complement. Bool is 1 if any bit of the field
// is set. BitN is bit N of the field read as one integer, counted from the
// least significant, so that Bit3 of a two-byte register is in its second byte.
// BCD is unsigned, two digits a byte. ASCII is text, padded with NULs at its
// end; these are not part of the value.
func ParseEncoding(name string) (Encoding, error) {
	upper := strings.ToUpper(strings.TrimSpace(name))
	if e, ok := parseBase(upper); ok {
		return e, nil
	}
	for _, s := range suffixes {
		base, ok := strings.CutSuffix(upper, s.name)
		if !ok {
			continue
		}
		if n := len(base) - 1; n >= 0 && strings.IndexByte("_- ", base[n]) >= 0 {
			base = base[:n]
		}
		e, ok := parseBase(base)
		if !ok || !s.fits(e) {
			break // no shorter suffix would leave a base
		}
		e.order = s.order
		return e, nil
	}
	return Encoding{}, refuse(ReasonUnknownEncoding, "unknown encoding %s; known: %s", quote(name), known)
}

// quote quotes metadata, cut to a limit.
func quote(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "…"
}

// suffix is a spelling of an order.
type suffix struct {
	name  string
	order order
	size  int // of its types; 0: any type of whole registers, 1: any type
}

// suffixes are sorted so that a longer suffix comes before its own ending.
var suffixes = []suffix{
	{"ABCDEFGH", bigEndian, 8},
	{"HGFEDCBA", littleEndian, 8},
	{"GHEFCDAB", wordSwapped, 8},
	{"BADCFEHG", byteSwapped, 8},
	{"ABCD", bigEndian, 0},
	{"DCBA", littleEndian, 0},
	{"CDAB", wordSwapped, 0},
	{"BADC", byteSwapped, 0},
	{"ABC", bigEndian, 3},
	{"CBA", littleEndian, 3},
	{"AB", bigEndian, 2},
	{"BA", littleEndian, 2},
	{"BE", bigEndian, 1},
	{"LE", littleEndian, 1},
}

// fits reports whether the type may have the suffix.
func (s *suffix) fits(e Encoding) bool {
	switch s.size {
	case 1:
		return true
	case 0:
		return e.kind != kindBool && e.Size()%2 == 0
	}
	return e.Size() == s.size
}

// String returns the canonical name, which ParseEncoding accepts, or "unknown".
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

// Size returns the length of a field in bytes, or 0 if the field's Length decides (Bool, BitN,
// BCD, ASCII).
func (e Encoding) Size() int { return kinds[e.kind].size }

// checkLength returns an error if a field of this encoding cannot have the length.
func (e Encoding) checkLength(length int) error {
	size, longest := e.Size(), maxWidth
	if e.kind == kindASCII {
		longest = MaxLength
	}
	switch {
	case size > 0 && length == size:
		return nil
	case size > 0:
		return refuse(ReasonBadLength, "\"Length\" is %d; %s takes %d", length, e, size)
	case length < 1 || length > longest:
		return refuse(ReasonBadLength, "\"Length\" is %d; %s takes 1 to %d", length, e, longest)
	case e.kind == kindBit && int(e.bit) >= 8*length:
		return refuse(ReasonBadLength, "\"Length\" is %d; %s takes at least %d", length, e, e.bit/8+1)
	case length%2 != 0 && e.order.swapsRegisters():
		return refuse(ReasonBadLength, "\"Length\" is %d; %s takes whole registers of 2 bytes", length, e)
	}
	return nil
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
