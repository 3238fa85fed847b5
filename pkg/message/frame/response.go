package frame

import "fmt"

// Layout is the range of a device's data points. It tells a frame of a device without Modbus
// from a response that was cut or shifted on the bus.
type Layout struct {
	First int // the smallest offset of a data point
	End   int // the largest end of a data point
}

// Add extends the layout by a field. The zero Layout has none.
func (l *Layout) Add(f Field) {
	if l.End == 0 || f.Offset < l.First {
		l.First = f.Offset
	}
	l.End = max(l.End, f.End())
}

// expectsResponse reports whether the layout leaves room for address, function code
// and byte count.
func (l Layout) expectsResponse() bool { return l.First >= header }

// CRC is the state of a response's CRC.
type CRC uint8

// The CRC of a response.
const (
	CRCRight CRC = iota
	CRCWrong
	CRCMissing // the frame ends after the data
)

// String returns a word for people.
func (c CRC) String() string { return [...]string{"right", "wrong", "missing"}[c] }

// Response is the response of a Modbus RTU device in a frame: address, function code, byte
// count, data, CRC. Bytes after the CRC are ignored.
type Response struct {
	IsResponse bool // false: the frame is only bytes, and the other fields are zero
	Start      int  // of the data
	End        int  // of the data
	CRC        CRC
}

// The parts of a response and a request.
const (
	header        = 3 // address, function code, byte count
	trailer       = 2 // CRC
	exceptionSize = 5 // address, function code, exception code, CRC
	requestSize   = 8 // address, function code, start, quantity, CRC
	exceptionBit  = 0x80
	maxAddress    = 247
	maxShift      = 16 // bytes that may come before a response
)

// ReadResponse finds the response in a frame of a device whose data points have the layout. A
// frame is a response if its CRC is right, or if it has the form of a response to a function
// that reads (1 to 4 and 23) and all data points are after the first three bytes. An error, of
// type *Error, means that the frame contains no reading:
//
//   - ReasonModbusException: a response with the function code's high bit set.
//   - ReasonShortAnswer: the byte count is larger than the number of bytes.
//   - ReasonEchoedRequest: the request came back, alone or before the response.
//   - ReasonShiftedFrame: a response with a right CRC starts elsewhere, or would do so if it had
//     not lost its first byte or its end.
//
// The last two are only looked for if the data points are where a response has its data. If
// the data points fit a response after these bytes, and do not fit one at the frame's start,
// that response is returned. All other frames are neither responses nor errors: devices without
// Modbus have frames, too.
func ReadResponse(frame []byte, l Layout) (Response, error) {
	if a, ok := wholeResponse(frame, 0); ok {
		return a, nil
	}
	if isException(frame) {
		return Response{}, exception(frame, 0)
	}
	if !l.expectsResponse() {
		return Response{}, nil
	}
	if a, found, err := displaced(frame, l); found {
		return a, err
	}
	return likelyResponse(frame)
}

// wholeResponse reads a response with a right CRC that starts at a byte of the frame.
func wholeResponse(frame []byte, at int) (Response, bool) {
	b := frame[at:]
	if len(b) < header+1+trailer || !hasByteCount(b[1]) {
		return Response{}, false
	}
	n := int(b[2])
	if n == 0 || header+n+trailer > len(b) || !isSealed(b[:header+n+trailer]) {
		return Response{}, false
	}
	return Response{IsResponse: true, Start: at + header, End: at + header + n}, true
}

// isException reports whether the frame starts with an exception whose CRC is right.
func isException(b []byte) bool {
	return len(b) >= exceptionSize && b[1]&exceptionBit != 0 && b[1] != exceptionBit && b[2] != 0 && isSealed(b[:exceptionSize])
}

// displaced looks for an exception, a request, or a response that does not start the frame.
func displaced(frame []byte, l Layout) (a Response, found bool, err error) {
	echo := isRequest(frame)
	if echo && len(frame) == requestSize {
		return Response{}, true, refuse(ReasonEchoedRequest, "the request was echoed, and no response follows")
	}
	for at := 1; at <= maxShift && at+exceptionSize <= len(frame); at++ {
		if isException(frame[at:]) {
			return Response{}, true, exception(frame, at)
		}
		a, ok := wholeResponse(frame, at)
		if !ok {
			continue
		}
		n := a.End - a.Start
		switch {
		case l.First >= a.Start && l.End > header+n:
			return a, true, nil
		case echo:
			return Response{}, true, refuse(ReasonEchoedRequest, "the request was echoed before the response, which starts at byte %d", at)
		}
		return Response{}, true, refuse(ReasonShiftedFrame, "a response starts at byte %d, not at byte 0", at)
	}
	switch {
	case echo:
		return Response{}, true, refuse(ReasonEchoedRequest, "the request was echoed, and no response with a right CRC follows")
	case cutShort(frame, 1), cutShort(frame, 2), cutShort(frame, 3):
		return Response{}, true, refuse(ReasonShiftedFrame, "a response that is cut short starts after byte 0")
	case lostAddress(frame):
		return Response{}, true, refuse(ReasonShiftedFrame, "the response's first byte, the address, is missing")
	}
	return Response{}, false, nil
}

// isRequest reports whether the frame starts with a request to read whose CRC is right.
func isRequest(b []byte) bool {
	if len(b) < requestSize || b[1] < 1 || b[1] > 4 {
		return false
	}
	const mostBits, mostRegisters = 2000, 125
	most := mostRegisters
	if b[1] <= 2 {
		most = mostBits
	}
	quantity := int(b[4])<<8 | int(b[5])
	return 1 <= quantity && quantity <= most && isSealed(b[:requestSize])
}

// cutShort reports whether a response starts at a byte of the frame and its end is missing
// because of the bytes before: a controller that takes noise for the first bytes still reads
// only as many bytes as it expects. After one byte of noise, half of the CRC is there. After
// more, the noise must consist of 0x00 and 0xFF.
func cutShort(frame []byte, at int) bool {
	if at+header > len(frame) {
		return false
	}
	b := frame[at:]
	if !isRead(b[1]) || len(frame) != header+int(b[2])+trailer || b[2] < 2 {
		return false
	}
	if at == 1 {
		end := len(b) - 1
		return byte(Checksum(b[:end])) == b[end] //nolint:gosec // the low byte is what is meant
	}
	for _, c := range frame[:at] {
		if c != 0 && c != 0xFF {
			return false
		}
	}
	return 1 <= b[0] && b[0] <= maxAddress
}

// lostAddress reports whether the frame is a response with a right CRC that has lost its first
// byte, followed by zeros only: there are 247 possible first bytes, so a right CRC alone proves
// little.
func lostAddress(b []byte) bool {
	if len(b) < header+trailer || !isRead(b[0]) {
		return false
	}
	end := header - 1 + int(b[1])
	if b[1] == 0 || end+trailer > len(b) || !isZero(b[end+trailer:]) {
		return false
	}
	address := firstByte(b[:end], uint16(b[end])|uint16(b[end+1])<<8)
	return 1 <= address && address <= maxAddress
}

// likelyResponse looks at the form of a frame without a right CRC.
func likelyResponse(b []byte) (Response, error) {
	switch {
	case len(b) < header || b[0] < 1 || b[0] > maxAddress:
		return Response{}, nil
	case b[1]&exceptionBit != 0:
		if isRead(b[1]&^exceptionBit) && exceptions[b[2]] != "" && (len(b) <= exceptionSize || isZero(b[exceptionSize:])) {
			return Response{}, exception(b, 0)
		}
		return Response{}, nil
	case !isRead(b[1]):
		return Response{}, nil
	}
	a := Response{IsResponse: true, Start: header, End: header + int(b[2]), CRC: CRCWrong}
	switch {
	case a.End > len(b):
		return Response{}, refuse(ReasonShortAnswer, "the response's byte count is %d, and %d bytes follow it", b[2], len(b)-header)
	case a.End+trailer > len(b):
		a.CRC = CRCMissing
	case isSealed(b[:a.End+trailer]):
		a.CRC = CRCRight // with a byte count of 0
	}
	return a, nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Check returns an error if the field is not within the response's data or the three bytes
// before them: the CRC and what follows it are not readings. It returns nil for a frame that is
// not a response. Errors are of type *Error, with ReasonOutOfRange.
func (a Response) Check(f Field) error {
	if !a.IsResponse || f.End() <= a.End {
		return nil
	}
	if a.Start == a.End {
		return refuse(ReasonOutOfRange, "beyond the response's byte count of 0: %s", f.place())
	}
	n := a.End - a.Start
	return refuse(ReasonOutOfRange, "beyond the response's byte count of %d (%s): %s", n, place(a.Start, n), f.place())
}

// CheckCRC returns an error of type *Error, with ReasonWrongCRC, if the frame is a response
// without a right CRC.
func (a Response) CheckCRC() error {
	if a.CRC == CRCRight {
		return nil
	}
	return refuse(ReasonWrongCRC, "%s CRC", a.CRC)
}

// exception returns the error for the exception that starts at a byte of the frame.
func exception(frame []byte, at int) error {
	function, code := frame[at+1]&^exceptionBit, frame[at+2]
	name := exceptions[code]
	if name == "" {
		name = "not in the Modbus specification"
	}
	behind := ""
	if at > 0 {
		behind = fmt.Sprintf(", at byte %d", at)
	}
	return refuse(ReasonModbusException, "Modbus exception %d (%s) to function %d%s", code, name, function, behind)
}

// exceptions are the names of the exception codes (MODBUS Application Protocol
// Specification 1.1b3, section 7).
var exceptions = [256]string{
	1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "server device failure",
	5: "acknowledge", 6: "server device busy", 7: "negative acknowledge", 8: "memory parity error",
	10: "gateway path unavailable", 11: "gateway target device failed to respond",
}

// isRead reports whether the function reads. Its response has a byte count.
func isRead(function byte) bool { return 1 <= function && function <= 4 || function == 23 }

// hasByteCount also accepts the other functions whose response has a byte count. Frames of
// devices without Modbus may look like them, so they need a right CRC.
func hasByteCount(function byte) bool {
	switch function {
	case 12, 17, 20, 21:
		return true
	}
	return isRead(function)
}
