package frame_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		name     string
		encoding string
		decimals int
		hex      string
		want     frame.FieldValue
	}{
		{"int8", "Int8", 0, "80", frame.FieldValue{Number: -128}},
		{"uint8", "Uint8", 0, "80", frame.FieldValue{Number: 128}},
		{"int16", "Int16", 0, "FFFE", frame.FieldValue{Number: -2}},
		{"int16 LE", "Int16LE", 0, "FEFF", frame.FieldValue{Number: -2}},
		{"int16 BADC", "Int16BADC", 0, "FEFF", frame.FieldValue{Number: -2}},
		{"int16 CDAB", "Int16CDAB", 0, "FFFE", frame.FieldValue{Number: -2}},
		{"negative with decimals", "Int16", 2, "FF9C", frame.FieldValue{Number: -1}},
		{"uint16", "Uint16", 0, "FFFF", frame.FieldValue{Number: 65535}},
		{"int24", "Int24", 0, "FFFFFE", frame.FieldValue{Number: -2}},
		{"int24 least", "Int24", 1, "800000", frame.FieldValue{Number: -838860.8}},
		{"int24 LE", "Int24LE", 0, "FEFFFF", frame.FieldValue{Number: -2}},
		{"uint24", "Uint24", 0, "FFFFFE", frame.FieldValue{Number: 16777214}},
		{"uint24 CBA", "Uint24CBA", 0, "030201", frame.FieldValue{Number: 0x010203}},
		{"float32 ABCD", "Float32ABCD", 0, "43663333", frame.FieldValue{Number: 230.1999969482422}},
		{"float32 DCBA", "Float32DCBA", 0, "33336643", frame.FieldValue{Number: 230.1999969482422}},
		{"uint32", "Uint32", 0, "01020304", frame.FieldValue{Number: 0x01020304}},
		{"uint32 LE", "Uint32LE", 0, "04030201", frame.FieldValue{Number: 0x01020304}},
		{"uint32 CDAB", "Uint32CDAB", 0, "03040102", frame.FieldValue{Number: 0x01020304}},
		{"uint32 BADC", "Uint32BADC", 0, "02010403", frame.FieldValue{Number: 0x01020304}},
		{"uint64 CDAB", "Uint64CDAB", 0, "0708050603040102", frame.FieldValue{Number: 0x0102030405060708}},
		{"uint64 BADC", "Uint64BADC", 0, "0201040306050807", frame.FieldValue{Number: 0x0102030405060708}},
		{"int64 least", "Int64", 0, "8000000000000000", frame.FieldValue{Number: math.MinInt64}},
		{"uint64 most", "Uint64", 0, "FFFFFFFFFFFFFFFF", frame.FieldValue{Number: math.MaxUint64}},
		{"uint64 most with decimals", "Uint64", 2, "FFFFFFFFFFFFFFFF", frame.FieldValue{Number: 184467440737095516.15}},
		{"float32", "Float32", 0, "41BC0000", frame.FieldValue{Number: 23.5}},
		{"float32 CDAB", "Float32CDAB", 0, "000041BC", frame.FieldValue{Number: 23.5}},
		{"float32 with decimals", "Float32", 1, "41BC0000", frame.FieldValue{Number: 2.35}},
		{"float64", "Float64", 0, "4037800000000000", frame.FieldValue{Number: 23.5}},
		{"multiplied", "Uint16", -2, "0019", frame.FieldValue{Number: 2500}},
		{"2552 with 2 decimals", "Int16", 2, "09F8", frame.FieldValue{Number: 25.52}},
		{"1 with 22 decimals", "Int16", 22, "0001", frame.FieldValue{Number: 1e-22}},
		{"bool set", "Bool", 0, "01", frame.FieldValue{Number: 1}},
		{"bool any bit", "Bool", 0, "FF00", frame.FieldValue{Number: 1}},
		{"bool clear", "Bool", 0, "0000", frame.FieldValue{Number: 0}},
		{"bit set", "Bit3", 0, "08", frame.FieldValue{Number: 1}},
		{"bit clear", "Bit3", 0, "F7", frame.FieldValue{Number: 0}},
		{"bit of a register", "Bit3", 0, "0008", frame.FieldValue{Number: 1}},
		{"high bit of a register", "Bit11", 0, "0800", frame.FieldValue{Number: 1}},
		{"bit of a register LE", "Bit3LE", 0, "0800", frame.FieldValue{Number: 1}},
		{"bcd", "BCD", 0, "1234", frame.FieldValue{Number: 1234}},
		{"bcd with decimals", "BCD", 2, "001234", frame.FieldValue{Number: 12.34}},
		{"bcd LE", "BCDLE", 0, "563412", frame.FieldValue{Number: 123456}},
		{"bcd CDAB", "BCDCDAB", 0, "56781234", frame.FieldValue{Number: 12345678}},
		{"bcd longest", "BCD", 16, "9999999999999999", frame.FieldValue{Number: 0.9999999999999999}},
		{"ascii", "ASCII", 0, "463220206F6B", frame.FieldValue{Text: "F2  ok", IsText: true}},
		{"ascii padded", "ASCII", 0, "46322000", frame.FieldValue{Text: "F2 ", IsText: true}},
		{"ascii empty", "ASCII", 0, "0000", frame.FieldValue{IsText: true}},
		{"ascii BADC", "ASCIIBADC", 0, "32460033", frame.FieldValue{Text: "F23", IsText: true}},
		{"ascii lines", "ASCII", 0, "410D0A09", frame.FieldValue{Text: "A\r\n\t", IsText: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := mustHex(t, tc.hex)
			bytes := append([]byte{0xAA, 0xBB, 0xCC}, append(b, 0xDD)...)
			f := frame.Field{Encoding: encoding(t, tc.encoding), Offset: 3, Length: len(b), Decimals: tc.decimals}
			got, err := f.Decode(bytes)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		field  frame.Field
		hex    string
		reason string
	}{
		{"past the end", frame.Field{Encoding: encoding(t, "Int16"), Offset: 1, Length: 2}, "0102", frame.ReasonOutOfRange},
		{"far past the end", frame.Field{Encoding: encoding(t, "Int16"), Offset: math.MaxInt, Length: 2}, "0102", frame.ReasonOutOfRange},
		{"empty frame", frame.Field{Encoding: encoding(t, "Int8"), Length: 1}, "", frame.ReasonOutOfRange},
		{"negative offset", frame.Field{Encoding: encoding(t, "Int16"), Offset: -1, Length: 2}, "0102", frame.ReasonBadOffset},
		{"negative length", frame.Field{Encoding: encoding(t, "ASCII"), Length: -1}, "0102", frame.ReasonBadLength},
		{"no length", frame.Field{Encoding: encoding(t, "Int16")}, "0102", frame.ReasonBadLength},
		{"short length", frame.Field{Encoding: encoding(t, "Int32"), Length: 2}, "01020304", frame.ReasonBadLength},
		{"long length", frame.Field{Encoding: encoding(t, "Int16"), Length: 4}, "01020304", frame.ReasonBadLength},
		{"long BCD", frame.Field{Encoding: encoding(t, "BCD"), Length: 9}, "000000000000000000", frame.ReasonBadLength},
		{"short for 24 bits", frame.Field{Encoding: encoding(t, "Int24"), Length: 2}, "010203", frame.ReasonBadLength},
		{"odd registers", frame.Field{Encoding: encoding(t, "BCDCDAB"), Length: 3}, "000000", frame.ReasonBadLength},
		{"odd registers of text", frame.Field{Encoding: encoding(t, "ASCIIBADC"), Length: 3}, "000000", frame.ReasonBadLength},
		{"bit beyond the length", frame.Field{Encoding: encoding(t, "Bit8"), Length: 1}, "FFFF", frame.ReasonBadLength},
		{"long text", frame.Field{Encoding: encoding(t, "ASCII"), Length: frame.MaxLength + 1}, "41", frame.ReasonBadLength},
		{"many decimals", frame.Field{Encoding: encoding(t, "Int16"), Length: 2, Decimals: 23}, "0102", frame.ReasonBadDecimals},
		{"few decimals", frame.Field{Encoding: encoding(t, "Int16"), Length: 2, Decimals: -23}, "0102", frame.ReasonBadDecimals},
		{"least decimals", frame.Field{Encoding: encoding(t, "Int16"), Length: 2, Decimals: math.MinInt}, "0102", frame.ReasonBadDecimals},
		{"decimals of text", frame.Field{Encoding: encoding(t, "ASCII"), Length: 2, Decimals: 1}, "4142", frame.ReasonBadDecimals},
		{"NaN", frame.Field{Encoding: encoding(t, "Float32"), Length: 4}, "7FC00000", frame.ReasonNotANumber},
		{"infinity", frame.Field{Encoding: encoding(t, "Float64"), Length: 8}, "FFF0000000000000", frame.ReasonNotANumber},
		{"multiplied to infinity", frame.Field{Encoding: encoding(t, "Float64"), Length: 8, Decimals: -1}, "7FEFFFFFFFFFFFFF", frame.ReasonNotANumber},
		{"BCD digit above 9", frame.Field{Encoding: encoding(t, "BCD"), Length: 2}, "12A4", frame.ReasonBadBCD},
		{"NUL inside text", frame.Field{Encoding: encoding(t, "ASCII"), Length: 3}, "410042", frame.ReasonBadASCII},
		{"8-bit text", frame.Field{Encoding: encoding(t, "ASCII"), Length: 2}, "41E9", frame.ReasonBadASCII},
		{"escape in text", frame.Field{Encoding: encoding(t, "ASCII"), Length: 2}, "1B5B", frame.ReasonBadASCII},
		{"delete in text", frame.Field{Encoding: encoding(t, "ASCII"), Length: 2}, "417F", frame.ReasonBadASCII},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.field.Decode(mustHex(t, tc.hex))
			requireReason(t, err, tc.reason)
			require.Zero(t, got)
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	number := func(n float64) frame.FieldValue { return frame.FieldValue{Number: n} }
	text := func(s string) frame.FieldValue { return frame.FieldValue{Text: s, IsText: true} }
	for _, tc := range []struct {
		name     string
		encoding string
		length   int
		decimals int
		value    frame.FieldValue
		reason   string
	}{
		{"above int8", "Int8", 1, 0, number(128), frame.ReasonOverflow},
		{"below int8", "Int8", 1, 0, number(-129), frame.ReasonOverflow},
		{"below uint8", "Uint8", 1, 0, number(-1), frame.ReasonOverflow},
		{"above int24", "Int24", 3, 0, number(1 << 23), frame.ReasonOverflow},
		{"above uint24", "Uint24", 3, 0, number(1 << 24), frame.ReasonOverflow},
		{"above uint16 once scaled", "Uint16", 2, 2, number(655.36), frame.ReasonOverflow},
		{"above uint64", "Uint64", 8, 0, number(36893488147419103232), frame.ReasonOverflow},
		{"far above uint64", "Uint64", 8, 22, number(1e308), frame.ReasonOverflow},
		{"above bit", "Bit3", 1, 0, number(2), frame.ReasonOverflow},
		{"above bool", "Bool", 1, 0, number(2), frame.ReasonOverflow},
		{"above BCD", "BCD", 1, 0, number(100), frame.ReasonOverflow},
		{"above float32", "Float32", 4, 0, number(1e39), frame.ReasonOverflow},
		{"above float64 once scaled", "Float64", 8, 2, number(1e308), frame.ReasonOverflow},
		{"NaN", "Float32", 4, 0, number(math.NaN()), frame.ReasonNotANumber},
		{"infinity", "Int16", 2, 0, number(math.Inf(-1)), frame.ReasonNotANumber},
		{"text for a number", "Int16", 2, 0, text("1"), frame.ReasonWrongType},
		{"a number for text", "ASCII", 2, 0, number(1), frame.ReasonWrongType},
		{"long text", "ASCII", 2, 0, text("123"), frame.ReasonOverflow},
		{"text with a NUL", "ASCII", 4, 0, text("a\x00"), frame.ReasonBadASCII},
		{"8-bit text", "ASCII", 4, 0, text("é"), frame.ReasonBadASCII},
		{"past the end", "Int64", 8, 0, number(1), frame.ReasonOutOfRange},
		{"bad length", "Int16", 3, 0, number(1), frame.ReasonBadLength},
	} {
		t.Run(tc.name, func(t *testing.T) {
			offset := 2
			if tc.reason == frame.ReasonOutOfRange {
				offset = 3
			}
			b := make([]byte, 10)
			f := frame.Field{Encoding: encoding(t, tc.encoding), Offset: offset, Length: tc.length, Decimals: tc.decimals}
			requireReason(t, f.Encode(b, tc.value), tc.reason)
			require.Equal(t, make([]byte, 10), b, "a refused value must not be written")
		})
	}
}

func TestEncodeRoundsToNearest(t *testing.T) {
	for _, tc := range []struct{ value, want float64 }{
		{23.456, 23.46}, {23.454, 23.45}, {-23.456, -23.46}, {0.001, 0}, {-0.001, 0}, {327.674, 327.67},
	} {
		b := make([]byte, 2)
		f := frame.Field{Encoding: encoding(t, "Int16"), Length: 2, Decimals: 2}
		require.NoError(t, f.Encode(b, frame.FieldValue{Number: tc.value}))
		got, err := f.Decode(b)
		require.NoError(t, err)
		require.Equal(t, tc.want, got.Number) //nolint:testifylint // equal to the last bit
	}
}

func TestEncodeKeepsOtherBits(t *testing.T) {
	b := []byte{0xA5, 0xA5, 0xA5}
	f := frame.Field{Encoding: encoding(t, "Bit9"), Offset: 1, Length: 2}
	require.NoError(t, f.Encode(b, frame.FieldValue{Number: 1}))
	require.Equal(t, []byte{0xA5, 0xA7, 0xA5}, b)
	require.NoError(t, f.Encode(b, frame.FieldValue{Number: 0}))
	require.Equal(t, []byte{0xA5, 0xA5, 0xA5}, b)
}

// TestDetails covers the texts of errors, which operators act on: the value, and what is
// right.
func TestDetails(t *testing.T) {
	for _, tc := range []struct {
		field frame.Field
		want  string
	}{
		{frame.Field{Encoding: encoding(t, "Int32"), Length: 2}, `"Length" is 2; Int32 takes 4`},
		{frame.Field{Encoding: encoding(t, "BCD"), Length: 9}, `"Length" is 9; BCD takes 1 to 8`},
		{frame.Field{Encoding: encoding(t, "Bit9"), Length: 1}, `"Length" is 1; Bit9 takes at least 2`},
		{frame.Field{Encoding: encoding(t, "ASCIICDAB"), Length: 3}, `"Length" is 3; ASCIICDAB takes whole registers of 2 bytes`},
		{frame.Field{Encoding: encoding(t, "Int16"), Length: 2, Offset: -1}, `"Offset" is -1; it counts bytes from the frame's start, which is 0`},
		{frame.Field{Encoding: encoding(t, "Int16"), Length: 2, Decimals: 23}, `"Decimals" is 23; it must be -22 to 22`},
		{frame.Field{Encoding: encoding(t, "ASCII"), Length: 2, Decimals: 1}, `"Decimals" is 1; it must be 0 for ASCII`},
		{frame.Field{Encoding: encoding(t, "Int16"), Length: 2, Offset: 4}, `beyond the frame's 5 bytes: bytes 4 to 5`},
		{frame.Field{Encoding: encoding(t, "Int8"), Length: 1, Offset: 5}, `beyond the frame's 5 bytes: byte 5`},
		{frame.Field{Encoding: encoding(t, "BCD"), Length: 2, Offset: 2}, `a half-byte above 9 in bytes 2 to 3`},
	} {
		_, err := tc.field.Decode([]byte{1, 3, 0xFF, 0, 0})
		require.EqualError(t, err, tc.want)
	}
}

// TestRaw reads bytes in the encoding's order, without sign and scale.
func TestRaw(t *testing.T) {
	for _, tc := range []struct {
		encoding, hex string
		want          uint64
		ok            bool
	}{
		{"Int16", "8000", 0x8000, true},
		{"Int16LE", "0080", 0x8000, true},
		{"Uint32CDAB", "03040102", 0x01020304, true},
		{"Float32", "7FC00000", 0x7FC00000, true},
		{"ASCII", "4E2F41", 0x4E2F41, true},
		{"ASCII", "414243444546474849", 0, false},
		{"Int32", "0102", 0, false},
	} {
		b := mustHex(t, tc.hex)
		raw, ok := frame.Field{Encoding: encoding(t, tc.encoding), Length: len(b), Decimals: 0}.Raw(b)
		require.Equal(t, tc.ok, ok, tc.encoding)
		require.Equal(t, tc.want, raw, tc.encoding)
	}
}

func mustHex(t require.TestingT, s string) []byte {
	b, err := frame.ParseHex(nil, []byte(s))
	require.NoError(t, err)
	return b
}
