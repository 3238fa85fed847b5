package frame_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

func TestParseEncoding(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		size       int
	}{
		{"Int8", "Int8", 1},
		{"uint8", "Uint8", 1},
		{"INT16", "Int16", 2},
		{"UInt16", "Uint16", 2},
		{"Int32", "Int32", 4},
		{"uint32LE", "Uint32LE", 4},
		{"uint32le", "Uint32LE", 4},
		{"Uint32_CDAB", "Uint32CDAB", 4},
		{"int64-badc", "Int64BADC", 8},
		{"Uint64", "Uint64", 8},
		{"Float32CDAB", "Float32CDAB", 4},
		{"float64_le", "Float64LE", 8},
		{"Int16CDAB", "Int16CDAB", 2},
		{"Int8LE", "Int8LE", 1},
		{"Bool", "Bool", 0},
		{"boolLE", "BoolLE", 0},
		{"Bit0", "Bit0", 0},
		{"bit3", "Bit3", 0},
		{"BIT63_CDAB", "Bit63CDAB", 0},
		{"bcd", "BCD", 0},
		{"BCDCDAB", "BCDCDAB", 0},
		{"ascii", "ASCII", 0},
		{"ASCII-BADC", "ASCIIBADC", 0},
		{"Int24", "Int24", 3},
		{"uint24le", "Uint24LE", 3},
		{"Int24_ABC", "Int24", 3},
		{"Uint24CBA", "Uint24LE", 3},
		{"Float32ABCD", "Float32", 4},
		{"FLOAT32DCBA", "Float32LE", 4},
		{"float32 cdab", "Float32CDAB", 4},
		{"Float32-BADC", "Float32BADC", 4},
		{"Float64ABCD", "Float64", 8},
		{"Float64ABCDEFGH", "Float64", 8},
		{"Int64_HGFEDCBA", "Int64LE", 8},
		{"Uint64GHEFCDAB", "Uint64CDAB", 8},
		{"Uint64BADCFEHG", "Uint64BADC", 8},
		{"Int16AB", "Int16", 2},
		{"Uint16BA", "Uint16LE", 2},
		{"Uint16ABCD", "Uint16", 2},
		{"Int16BE", "Int16", 2},
		{"Uint8BE", "Uint8", 1},
		{"BCDABCD", "BCD", 0},
		{"BCD DCBA", "BCDLE", 0},
		{"ASCIIABCD", "ASCII", 0},
		{"Bit12DCBA", "Bit12LE", 0},
		{" Int16", "Int16", 2},
		{"\tUint32 LE \r\n", "Uint32LE", 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := frame.ParseEncoding(tc.name)
			require.NoError(t, err)
			require.Equal(t, tc.want, got.String())
			require.Equal(t, tc.size, got.Size())
		})
	}
}

func TestParseEncodingRefuses(t *testing.T) {
	for _, name := range []string{
		"", " ", "LE", "_LE", "ABCD", "Int", "Int16__LE", "Int16 _LE", "Int16  LE", "Int16LELE", "Int16BELE", "In t16",
		"Int24CDAB", "Uint24BADC", "Int24ABCD", "Int24AB", "Int16ABC", "Int32AB", "Int32ABCDEFGH", "Float64AB", "Int8ABCD",
		"Uint8AB", "BoolABCD", "ASCIIAB", "BCDAB", "Bit3AB", "Float32ACBD", "Float32-IEEE", "Uint12", "Int40",
		"Int8CDAB", "Uint8BADC", "BoolCDAB", "Bit", "Bit64", "Bit03", "Bit-1", "Bit+1", "Bit256",
		"Double", "Int16\x00", "Float16", "unknown", "İnt16",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := frame.ParseEncoding(name)
			requireReason(t, err, frame.ReasonUnknownEncoding)
		})
	}
}

// TestUnknownEncodingSaysWhatIsKnown covers the text of the error, which operators act on.
func TestUnknownEncodingSaysWhatIsKnown(t *testing.T) {
	_, err := frame.ParseEncoding("FLOAT32-IEEE")
	require.ErrorContains(t, err, `unknown encoding "FLOAT32-IEEE"; known: Int8, Uint8, Int16, Uint16,`)
	_, err = frame.ParseEncoding(strings.Repeat("x", 1000))
	require.Less(t, len(err.Error()), 400)
}

func TestZeroEncoding(t *testing.T) {
	require.Equal(t, "unknown", frame.Encoding{}.String())
	require.Zero(t, frame.Encoding{}.Size())
	_, err := frame.Field{Length: 1}.Decode([]byte{1})
	requireReason(t, err, frame.ReasonUnknownEncoding)
}

// names lists every encoding.
func names() []string {
	var all []string
	bases := []string{
		"Int8", "Uint8", "Int16", "Uint16", "Int24", "Uint24", "Int32", "Uint32", "Int64", "Uint64", "Float32", "Float64",
		"Bool", "Bit0", "Bit7", "Bit8", "Bit15", "Bit31", "Bit63", "BCD", "ASCII",
	}
	for _, base := range bases {
		for _, suffix := range []string{"", "LE", "CDAB", "BADC"} {
			swaps := suffix == "CDAB" || suffix == "BADC"
			if swaps && (strings.HasSuffix(base, "nt8") || strings.HasSuffix(base, "nt24") || base == "Bool") {
				continue
			}
			all = append(all, base+suffix)
		}
	}
	return all
}

func TestNamesAreCanonical(t *testing.T) {
	seen := map[frame.Encoding]string{}
	for _, name := range names() {
		e := encoding(t, name)
		require.Equal(t, name, e.String())
		require.Empty(t, seen[e], "two names for one encoding")
		seen[e] = name
	}
}

func encoding(t require.TestingT, name string) frame.Encoding {
	e, err := frame.ParseEncoding(name)
	require.NoError(t, err)
	return e
}

// reasons is the whole set. A new reason must be added here and to the operators' documents.
var reasons = []string{
	frame.ReasonBadHex, frame.ReasonUnknownEncoding, frame.ReasonBadOffset, frame.ReasonBadLength,
	frame.ReasonBadDecimals, frame.ReasonOutOfRange, frame.ReasonNotANumber, frame.ReasonBadBCD,
	frame.ReasonBadASCII, frame.ReasonOverflow, frame.ReasonWrongType,
	frame.ReasonModbusException, frame.ReasonShortAnswer, frame.ReasonEchoedRequest, frame.ReasonShiftedFrame,
	frame.ReasonWrongCRC,
}

func requireReason(t require.TestingT, err error, reason string) {
	var refused *frame.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, reason, refused.Reason)
	require.NotEmpty(t, refused.Detail)
	require.Equal(t, refused.Detail, err.Error())
}
