package frame_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/frame"
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
		"", "LE", "_LE", "Int", "Int24", "Int16 ", " Int16", "Int16__LE", "Int16BE", "Int16LELE",
		"Int8CDAB", "Uint8BADC", "BoolCDAB", "Bit", "Bit64", "Bit03", "Bit-1", "Bit+1", "Bit256",
		"Double", "Int16\x00", "Float16", "unknown", "İnt16",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := frame.ParseEncoding(name)
			requireReason(t, err, frame.ReasonUnknownEncoding)
		})
	}
}

func TestZeroEncoding(t *testing.T) {
	require.Equal(t, "unknown", frame.Encoding{}.String())
	require.Zero(t, frame.Encoding{}.Size())
	_, err := frame.Field{Length: 1}.Decode([]byte{1})
	requireReason(t, err, frame.ReasonUnknownEncoding)
}

// names lists every encoding that there is.
func names() []string {
	var all []string
	bases := []string{
		"Int8", "Uint8", "Int16", "Uint16", "Int32", "Uint32", "Int64", "Uint64", "Float32", "Float64",
		"Bool", "Bit0", "Bit7", "Bit8", "Bit15", "Bit31", "Bit63", "BCD", "ASCII",
	}
	for _, base := range bases {
		for _, suffix := range []string{"", "LE", "CDAB", "BADC"} {
			swaps := suffix == "CDAB" || suffix == "BADC"
			if swaps && (strings.HasSuffix(base, "nt8") || base == "Bool") {
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

// reasons is the whole set: a new one has to be added here and to the
// operators' documents.
var reasons = []string{
	frame.ReasonBadHex, frame.ReasonUnknownEncoding, frame.ReasonBadOffset, frame.ReasonBadLength,
	frame.ReasonBadDecimals, frame.ReasonOutOfRange, frame.ReasonNotANumber, frame.ReasonBadBCD,
	frame.ReasonBadASCII, frame.ReasonOverflow, frame.ReasonWrongType,
}

func requireReason(t require.TestingT, err error, reason string) {
	var refused *frame.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, reason, refused.Reason)
	require.Equal(t, "frame: "+reason+": "+frame.Details[reason], err.Error(), "the text is fixed: it must not quote what was refused")
	require.NotEmpty(t, frame.Details[reason])
}
