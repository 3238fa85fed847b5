package frame_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

// layout is the layout of fields of two bytes at the offsets.
func layout(offsets ...int) frame.Layout {
	var l frame.Layout
	for _, o := range offsets {
		l.Add(frame.Field{Offset: o, Length: 2})
	}
	return l
}

// sealed appends the CRC.
func sealed(b ...byte) []byte {
	crc := frame.Checksum(b)
	return append(bytes.Clone(b), byte(crc), byte(crc>>8))
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestChecksum(t *testing.T) {
	// The example of Modbus over Serial Line 1.02, and of the protocol's guides.
	require.Equal(t, uint16(0x4B37), frame.Checksum([]byte("123456789")))
	require.Equal(t, uint16(0xCDC5), frame.Checksum([]byte{0x01, 0x03, 0x00, 0x00, 0x00, 0x0A}))
}

func TestReadResponse(t *testing.T) {
	registers := layout(3, 5)
	for _, tc := range []struct {
		name, hex string
		layout    frame.Layout
		want      frame.Response
	}{
		{"right CRC", "01 04 04 01 31 02 22 2A CE", registers, frame.Response{IsResponse: true, Start: 3, End: 7}},
		{"trailing bytes", "01 04 04 01 31 02 22 2A CE 00 00 00", registers, frame.Response{IsResponse: true, Start: 3, End: 7}},
		{"a second response behind it", "01 04 04 01 31 02 22 2A CE 01 04 04 01 31 02 22 2A CE", registers, frame.Response{IsResponse: true, Start: 3, End: 7}},
		{"wrong CRC", "01 04 04 01 31 02 22 FF FF", registers, frame.Response{IsResponse: true, Start: 3, End: 7, CRC: frame.CRCWrong}},
		{"the reference's example", issueFrame, layout(3, 5, 7), frame.Response{IsResponse: true, Start: 3, End: 15, CRC: frame.CRCWrong}},
		{"no CRC", "01 04 04 01 31 02 22", registers, frame.Response{IsResponse: true, Start: 3, End: 7, CRC: frame.CRCMissing}},
		{"half a CRC", "01 04 04 01 31 02 22 2A", registers, frame.Response{IsResponse: true, Start: 3, End: 7, CRC: frame.CRCMissing}},
		{"fewer data than data points", "01 04 02 01 31 79 74", registers, frame.Response{IsResponse: true, Start: 3, End: 5}},
		{"no data", "01 04 00 01 31 79 74", registers, frame.Response{IsResponse: true, Start: 3, End: 3, CRC: frame.CRCWrong}},
		{"no data, right CRC", "01 04 00 22 C0", registers, frame.Response{IsResponse: true, Start: 3, End: 3}},
		{"coils", "11 01 05 CD 6B B2 0E 1B 45 E6", layout(3), frame.Response{IsResponse: true, Start: 3, End: 8}},
		{"three bytes of coils are no echoed request", "11 01 03 CD 00 05 6F 22", layout(3), frame.Response{IsResponse: true, Start: 3, End: 6}},
		{"right CRC where the layout does not expect a response", "01 04 04 01 31 02 22 2A CE", layout(0, 5), frame.Response{IsResponse: true, Start: 3, End: 7}},
		{"an address beyond Modbus's with a right CRC", "F8 04 04 01 31 02 22 43 C1", registers, frame.Response{IsResponse: true, Start: 3, End: 7}},

		{"empty", "", registers, frame.Response{}},
		{"too short for a byte count", "01 04", registers, frame.Response{}},
		{"another function", "01 06 04 01 31 02 22 00 00", registers, frame.Response{}},
		{"another device's bytes", "AA 55 09 01 31 02 22 00 00", registers, frame.Response{}},
		{"address 0", "00 03 04 01 31 02 22 00 00", registers, frame.Response{}},
		{"address beyond Modbus's", "F8 03 04 01 31 02 22 00 00", registers, frame.Response{}},
		{"data where a response has its address", "12 03 FF 07", layout(0, 2), frame.Response{}},
		{"what looks like an exception, likewise", "12 83 02 07 09", layout(0, 2), frame.Response{}},
		{"what looks like an exception to no read", "12 90 02 07 09", registers, frame.Response{}},
		{"what looks like an exception of no known code", "12 83 22 07 09", registers, frame.Response{}},
		{"what looks like an exception with data behind it", "12 83 02 07 09 FF 13", registers, frame.Response{}},
		{"no data points", "01 04 04 01 31 02 22 FF FF", frame.Layout{}, frame.Response{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := frame.ReadResponse(mustHex(t, tc.hex), tc.layout)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestReadResponseRefuses(t *testing.T) {
	registers := layout(3, 5)
	request := sealed(1, 4, 0, 0, 0, 2)
	response := sealed(1, 4, 4, 0x01, 0x31, 0x02, 0x22)
	for _, tc := range []struct {
		name   string
		frame  []byte
		reason string
		detail string
	}{
		{"exception", mustHex(t, "01 83 02 C0 F1"), frame.ReasonModbusException, "Modbus exception 2 (illegal data address) to function 3"},
		{"exception with bytes behind it", mustHex(t, "01 83 02 C0 F1 07 08"), frame.ReasonModbusException, "exception 2"},
		{"exception with a wrong CRC", mustHex(t, "01 84 04 FF FF"), frame.ReasonModbusException, "Modbus exception 4 (server device failure) to function 4"},
		{"the same in a long buffer", mustHex(t, "01 84 04 FF FF 00 00 00 00"), frame.ReasonModbusException, "exception 4"},
		{"exception without a CRC", mustHex(t, "01 81 06"), frame.ReasonModbusException, "Modbus exception 6 (server device busy) to function 1"},
		{"exception to another function", sealed(1, 0x90, 3), frame.ReasonModbusException, "to function 16"},
		{"exception of a code of the vendor's", sealed(1, 0x83, 0x55), frame.ReasonModbusException, "Modbus exception 85 (not in the Modbus specification)"},
		{"exception behind noise", join([]byte{0}, sealed(1, 0x83, 2)), frame.ReasonModbusException, "Modbus exception 2 (illegal data address) to function 3, at byte 1"},
		{"exception behind its request", join(request, sealed(1, 0x84, 2)), frame.ReasonModbusException, "at byte 8"},

		{"byte count beyond the end", mustHex(t, "01 03 0C 09 F8 13"), frame.ReasonShortAnswer, "byte count is 12, and 3 bytes follow"},
		{"header alone", mustHex(t, "01 03 0C"), frame.ReasonShortAnswer, "byte count is 12, and 0 bytes follow"},
		{"one data byte too few", mustHex(t, "01 04 04 01 31 02"), frame.ReasonShortAnswer, "byte count is 4, and 3 bytes follow"},

		{"echoed request", request, frame.ReasonEchoedRequest, "no response follows"},
		{"echoed request for bits", sealed(1, 1, 0, 0x13, 0, 0x25), frame.ReasonEchoedRequest, "no response follows"},
		{"echo whose start looks like a byte count", sealed(1, 3, 2, 0, 0, 2), frame.ReasonEchoedRequest, "no response follows"},
		{"echo before the response", join(request, response), frame.ReasonEchoedRequest, "response, which starts at byte 8"},
		{"echo before something else", join(request, []byte{1, 4, 4, 1}), frame.ReasonEchoedRequest, "no response with a right CRC follows"},

		{"a byte of noise first", join([]byte{0}, response), frame.ReasonShiftedFrame, "starts at byte 1"},
		{"a byte of noise that could be an address", join([]byte{0x80}, response), frame.ReasonShiftedFrame, "starts at byte 1"},
		{"three bytes of noise first", join([]byte{0xFF, 0, 7}, response), frame.ReasonShiftedFrame, "starts at byte 3"},
		{"noise first, and the end cut off", join([]byte{0x80}, response[:8]), frame.ReasonShiftedFrame, "cut short"},
		{"more noise first, and the end cut off", join([]byte{0, 0xFF}, response[:7]), frame.ReasonShiftedFrame, "cut short"},
		{"first byte lost", response[1:], frame.ReasonShiftedFrame, "address, is missing"},
		{"first byte lost, bytes behind the response", join(response[1:], []byte{0, 0}), frame.ReasonShiftedFrame, "address, is missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := frame.ReadResponse(tc.frame, registers)
			requireReason(t, err, tc.reason)
			require.ErrorContains(t, err, tc.detail)
			require.Zero(t, got)

			raw, err := frame.ReadResponse(tc.frame, layout(0, 2))
			if err != nil { // a right CRC at the frame's start is enough
				requireReason(t, err, frame.ReasonModbusException)
			}
			require.Zero(t, raw)
		})
	}
}

// TestBytesBeforeTheResponse: controllers always send some bytes before the response, and the
// offsets include them.
func TestBytesBeforeTheResponse(t *testing.T) {
	response := sealed(1, 4, 4, 0x01, 0x31, 0x02, 0x22)
	for _, before := range [][]byte{{7}, {7, 9}, sealed(1, 4, 0, 0, 0, 2)} {
		n := len(before)
		got, err := frame.ReadResponse(join(before, response), layout(n+3, n+5))
		require.NoError(t, err)
		require.Equal(t, frame.Response{IsResponse: true, Start: n + 3, End: n + 7}, got)
		_, err = frame.ReadResponse(join(before, response), layout(3, 5))
		require.Error(t, err, "the control")
	}
}

// TestBytesAlone is the control: read as bytes, the refused frames give values.
func TestBytesAlone(t *testing.T) {
	for hex, want := range map[string]float64{
		"01 83 02 C0 F1":                -16143, // an exception's CRC
		"01 04 02 01 31 79 74":          305,
		"01 04 00 00 00 02 71 CB":       0,
		"00 01 04 04 01 31 02 22 2A CE": 1025,
	} {
		v, err := frame.Field{Encoding: encoding(t, "Int16"), Offset: 3, Length: 2}.Decode(mustHex(t, hex))
		require.NoError(t, err)
		require.InDelta(t, want, v.Number, 0, hex)
	}
}

func TestCheck(t *testing.T) {
	a, err := frame.ReadResponse(mustHex(t, "01 04 02 01 31 79 74"), layout(3, 5))
	require.NoError(t, err)
	for _, tc := range []struct {
		offset, length int
		detail         string
	}{
		{3, 2, ""},
		{3, 1, ""},
		{4, 1, ""},
		{2, 1, ""},
		{0, 1, ""},
		{5, 2, "beyond the response's byte count of 2 (bytes 3 to 4): bytes 5 to 6"},
		{4, 2, "beyond the response's byte count of 2 (bytes 3 to 4): bytes 4 to 5"},
		{5, 1, "beyond the response's byte count of 2 (bytes 3 to 4): byte 5"},
		{3, 8, "beyond the response's byte count of 2 (bytes 3 to 4): bytes 3 to 10"},
	} {
		err := a.Check(frame.Field{Offset: tc.offset, Length: tc.length})
		if tc.detail == "" {
			require.NoError(t, err)
			require.NoError(t, frame.Response{}.Check(frame.Field{Offset: 99, Length: 2}), "a frame that is no response is only bytes")
			continue
		}
		requireReason(t, err, frame.ReasonOutOfRange)
		require.EqualError(t, err, tc.detail)
	}
	none := frame.Response{IsResponse: true, Start: 3, End: 3}
	require.ErrorContains(t, none.Check(frame.Field{Offset: 3, Length: 2}), "the response's byte count of 0")

	require.NoError(t, a.CheckCRC())
	require.NoError(t, frame.Response{}.CheckCRC())
	for crc, want := range map[frame.CRC]string{frame.CRCWrong: "wrong CRC", frame.CRCMissing: "missing CRC"} {
		err := frame.Response{IsResponse: true, CRC: crc}.CheckCRC()
		requireReason(t, err, frame.ReasonWrongCRC)
		require.EqualError(t, err, want)
	}
}

// TestResponsesOfAllSizes: responses of each function with any data are read, and refused if
// they were shifted, cut or echoed.
func TestResponsesOfAllSizes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		function := rapid.SampledFrom([]byte{1, 2, 3, 4, 23}).Draw(t, "function")
		data := rapid.SliceOfN(rapid.Byte(), 1, 250).Draw(t, "data")
		address := rapid.ByteRange(1, 247).Draw(t, "address")
		response := sealed(join([]byte{address, function, byte(len(data))}, data)...)
		all := frame.Layout{First: 3, End: 3 + len(data)}
		want := frame.Response{IsResponse: true, Start: 3, End: 3 + len(data)}

		behind := rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "behind")
		got, err := frame.ReadResponse(join(response, behind), all)
		require.NoError(t, err)
		require.Equal(t, want, got)

		_, err = frame.ReadResponse(join([]byte{rapid.SampledFrom([]byte{0, 0xFF}).Draw(t, "noise")}, response), all)
		requireReason(t, err, frame.ReasonShiftedFrame)
		_, err = frame.ReadResponse(response[1:], all)
		require.Error(t, err, "without its first byte")
		_, err = frame.ReadResponse(response[:rapid.IntRange(3, 2+len(data)).Draw(t, "cut")], all)
		requireReason(t, err, frame.ReasonShortAnswer)
	})
}

// TestFramesThatAreNoResponses logs how rarely a frame of a device without Modbus is taken for
// a response or for a damaged one, if all data points are after byte 2.
func TestFramesThatAreNoResponses(t *testing.T) {
	const frames = 200_000
	seed, refused, taken := uint64(1), 0, 0
	b := make([]byte, 17)
	for range frames {
		for i := range b {
			seed = seed*6364136223846793005 + 1442695040888963407
			b[i] = byte(seed >> 56)
		}
		a, err := frame.ReadResponse(b, layout(3, 5))
		switch {
		case err != nil:
			refused++
		case a.IsResponse:
			taken++
		}
	}
	t.Log("of", frames, "random frames", refused, "were refused and", taken, "read as responses")
	require.Less(t, refused, frames/40)
	require.Less(t, taken, frames/200)
}

func FuzzReadResponse(f *testing.F) {
	for _, s := range []string{
		issueFrame, "01 04 04 01 31 02 22 2A CE", "01 83 02 C0 F1", "01 04 02 01 31 79 74", "00 01 04 04 01 31 02 22 2A CE",
		"04 04 01 31 02 22 2A CE", "01 03 00 00 00 02 C4 0B", "", "01", "01 03", "01 03 0C", "00 FF 01 04 04 01 31 02 22",
	} {
		f.Add(mustHex(f, s), 3, 7)
	}
	f.Add([]byte{1, 3, 255}, 0, 2)
	f.Fuzz(func(t *testing.T, b []byte, first, end int) {
		before := bytes.Clone(b)
		a, err := frame.ReadResponse(b, frame.Layout{First: first, End: end})
		require.Equal(t, before, b, "the frame must not change")
		if err != nil {
			var refused *frame.Error
			require.ErrorAs(t, err, &refused)
			require.Contains(t, reasons, refused.Reason)
			require.Zero(t, a)
			return
		}
		require.True(t, 0 <= a.Start && a.Start <= a.End && a.End <= len(b))
		require.Equal(t, a.IsResponse, a != frame.Response{})
	})
}
