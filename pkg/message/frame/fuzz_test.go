package frame_test

import (
	"bytes"
	"encoding/hex"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

func FuzzParseHex(f *testing.F) {
	for _, s := range []string{
		"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28", "0103", " 0a  FF ", "0", "0 1", "zz", "",
		"01-03-0C\r\n", "0x01, 0x03", "01:03", "0x0x01", "--",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		before := bytes.Clone(src)
		got, err := frame.ParseHex([]byte{7}, src)
		require.Equal(t, before, src, "the source must not change")
		require.Equal(t, byte(7), got[0])
		if err != nil {
			requireReason(t, err, frame.ReasonBadHex)
			require.Len(t, got, 1)
			return
		}
		again, err := frame.ParseHex(nil, []byte(hex.EncodeToString(got[1:])))
		require.NoError(t, err)
		require.True(t, bytes.Equal(got[1:], again))
	})
}

func FuzzDecode(f *testing.F) {
	issue := []byte{1, 3, 12, 0x09, 0xF8, 0x13, 0x88, 0x02, 0xBC, 0, 0, 0, 0, 0, 0, 0x18, 0x28}
	f.Add("Int16", 3, 2, 2, issue)
	f.Add("Uint16", 5, 2, 2, issue)
	f.Add("Float32CDAB", 3, 4, 0, issue)
	f.Add("uint64_LE", 3, 8, -3, issue)
	f.Add("Bit11", 3, 2, 0, issue)
	f.Add("BCD", 4, 3, 1, issue)
	f.Add("ASCII-BADC", 0, 4, 0, []byte("2F-F"))
	f.Add("Bool", math.MaxInt, math.MinInt, 99, []byte(nil))
	f.Fuzz(func(t *testing.T, name string, offset, length, decimals int, b []byte) {
		e, err := frame.ParseEncoding(name)
		if err != nil {
			requireReason(t, err, frame.ReasonUnknownEncoding)
		}
		field := frame.Field{Encoding: e, Offset: offset, Length: length, Decimals: decimals}
		before := bytes.Clone(b)
		v, err := field.Decode(b)
		require.Equal(t, before, b, "the frame must not change")
		if err != nil {
			var refused *frame.Error
			require.ErrorAs(t, err, &refused)
			require.Contains(t, reasons, refused.Reason)
			require.Zero(t, v)
			return
		}
		require.False(t, math.IsNaN(v.Number) || math.IsInf(v.Number, 0))
		require.NoError(t, field.Encode(b, v))
		again, err := field.Decode(b)
		require.NoError(t, err)
		require.Equal(t, v, again)
	})
}
