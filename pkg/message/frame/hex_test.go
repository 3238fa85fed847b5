package frame_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
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
		{"01 03\r\n", []byte{1, 3}},
		{"01-03-0C\r\n", []byte{1, 3, 12}},
		{"01:03", []byte{1, 3}},
		{"01,03, 0C,", []byte{1, 3, 12}},
		{"01;03\t0C", []byte{1, 3, 12}},
		{"0x01 0x03", []byte{1, 3}},
		{"0x01,0X03", []byte{1, 3}},
		{"0x0103", []byte{1, 3}},
		{"0103 0x0C", []byte{1, 3, 12}},
		{"--", nil},
	} {
		got, err := frame.ParseHex(nil, []byte(tc.src))
		require.NoError(t, err, "%q", tc.src)
		require.Equal(t, tc.want, got, "%q", tc.src)
	}
}

func TestParseHexRefuses(t *testing.T) {
	for _, src := range []string{
		"0", "010", "01 0", "0 1", "01 0 3", "0x", "0x1", "0x1 0x2", "0x 01", "0x-01", "010x03", "0x0x01", "x01", "1x01", "01x03",
		"0x0", "0-1", "01.03", "01_03", "01/03", "01\v03", "01\u00a003", "01\u201303", "gg", "0g", "g0",
		"01\x0003", "\xff\xff", "é", "٠١", "/0", ":0", "@0", "`0", "01h", "N/A",
	} {
		dst := []byte{7, 7}[:1]
		got, err := frame.ParseHex(dst, []byte(src))
		requireReason(t, err, frame.ReasonBadHex)
		require.Equal(t, []byte{7}, got, "%q", src)
	}
}

// TestBadHexSaysWhere: the error counts characters from 1 and quotes none.
func TestBadHexSaysWhere(t *testing.T) {
	for src, want := range map[string]string{
		"01 03 ZZ": "character 7:", "01 03 0": "character 7:", "secret": "character 1:", "0x01 0x": "character 6:",
	} {
		_, err := frame.ParseHex(nil, []byte(src))
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), src)
	}
}

func TestParseHexInvertsEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.SliceOf(rapid.Byte()).Draw(t, "prefix")
		want := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		var src strings.Builder
		for _, b := range want {
			gap := rapid.StringMatching(`[ \t\r\n,;:-]{0,3}`).Draw(t, "gap")
			src.WriteString(gap)
			if gap != "" && rapid.Bool().Draw(t, "prefix") {
				src.WriteString("0x")
			}
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
