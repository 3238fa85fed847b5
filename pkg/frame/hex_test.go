package frame_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/frame"
)

func TestParseHex(t *testing.T) {
	for _, tc := range []struct {
		src  string
		want []byte
	}{
		{"", nil},
		{"   ", nil},
		{"0103", []byte{1, 3}},
		{"01 03", []byte{1, 3}},
		{" 01  03 ", []byte{1, 3}},
		{"01 030C", []byte{1, 3, 12}},
		{"aBCdEf", []byte{0xab, 0xcd, 0xef}},
	} {
		got, err := frame.ParseHex(nil, []byte(tc.src))
		require.NoError(t, err, "%q", tc.src)
		require.Equal(t, tc.want, got, "%q", tc.src)
	}
}

func TestParseHexRefuses(t *testing.T) {
	for _, src := range []string{
		"0", "010", "01 0", "0 1", "01 0 3", "0x01", "01-03", "01,03", "01\t03", "01\n03", "gg", "0g", "g0",
		"01\x0003", "\xff\xff", "é", "٠١", "/0", ":0", "@0", "`0",
	} {
		dst := []byte{7, 7}[:1]
		got, err := frame.ParseHex(dst, []byte(src))
		requireReason(t, err, frame.ReasonBadHex)
		require.Equal(t, []byte{7}, got, "%q", src)
	}
}

func TestParseHexInvertsEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.SliceOf(rapid.Byte()).Draw(t, "prefix")
		want := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		var src strings.Builder
		for _, b := range want {
			src.WriteString(strings.Repeat(" ", rapid.IntRange(0, 2).Draw(t, "spaces")))
			digits := hex.EncodeToString([]byte{b})
			if rapid.Bool().Draw(t, "upper") {
				digits = strings.ToUpper(digits)
			}
			src.WriteString(digits)
		}
		got, err := frame.ParseHex(bytes.Clone(prefix), []byte(src.String()))
		require.NoError(t, err)
		require.True(t, bytes.Equal(append(prefix, want...), got))
	})
}
