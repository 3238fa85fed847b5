package frame

import "fmt"

// Layout is where a device's data points lie: what tells a frame of other
// devices from an answer that was cut or shifted on the bus.
type Layout struct {
	First int // the least offset of a data point
	End   int // the greatest end of one
}

// Add extends the layout by a field. The zero Layout has none.
func (l *Layout) Add(f Field) {
	if l.End == 0 || f.Offset < l.First {
		l.First = f.Offset
	}
	l.End = max(l.End, f.End())
}

// expectsAnswer says whether the layout leaves room for address, function code
// and byte count.
func (l Layout) expectsAnswer() bool { return l.First >= header }

// CRC is what an answer's last two bytes are worth.
type CRC uint8

// The CRC of an answer.
const (
	CRCRight CRC = iota
	CRCWrong
	CRCMissing // the frame ends with the data
)

// String is a word for people.
func (c CRC) String() string { return [...]string{"right", "wrong", "missing"}[c] }

// Answer is a frame that is the answer of a Modbus RTU device: address, function
// code, byte count, data, CRC. What stands behind the CRC does not matter.
type Answer struct {
	IsAnswer bool // if not, the frame is only bytes, and all else is zero
	Start    int  // of the data
	End      int  // of the data
	CRC      CRC
}

// The parts of an answer and a request.
const (
	header        = 3 // address, function code, byte count
	trailer       = 2 // CRC
	exceptionSize = 5 // address, function code, exception code, CRC
	requestSize   = 8 // address, function code, start, quantity, CRC
	exceptionBit  = 0x80
	maxAddress    = 247
	maxShift      = 16 // bytes in which an answer is looked for behind others
)

// ReadAnswer says what a frame is to a device whose data points have the layout.
// It is an answer if its CRC is right, or if it has the form of an answer to one
// of the functions that read (1 to 4 and 23) and all data points lie behind the
// three bytes with which an answer begins. An error, of type *Error, says that
// the frame holds no reading:
//
//   - ReasonModbusException: an answer with the function code's high bit.
//   - ReasonShortAnswer: the byte count is larger than the bytes present.
//   - ReasonEchoedRequest: the request came back, alone or before the answer.
//   - ReasonShiftedFrame: an answer with a right CRC starts elsewhere, or would
//     if it had not lost its first byte or its end.
//
// The last two are not looked for where the data points do not lie as in an
// answer; where they lie as in one behind these bytes and could not lie so in one
// at the frame's start, the frame is that answer. All other frames are no answers
// and no errors: devices that do not speak Modbus have frames, too.
func ReadAnswer(frame []byte, l Layout) (Answer, error) {
	if a, ok := wholeAnswer(frame, 0); ok {
		return a, nil
	}
	if isException(frame) {
		return Answer{}, exception(frame, 0)
	}
	if !l.expectsAnswer() {
		return Answer{}, nil
	}
	if a, found, err := displaced(frame, l); found {
		return a, err
	}
	return likelyAnswer(frame)
}

// wholeAnswer reads an answer with a right CRC that starts at a byte of the frame.
func wholeAnswer(frame []byte, at int) (Answer, bool) {
	b := frame[at:]
	if len(b) < header+1+trailer || !hasByteCount(b[1]) {
		return Answer{}, false
	}
	n := int(b[2])
	if n == 0 || header+n+trailer > len(b) || !isSealed(b[:header+n+trailer]) {
		return Answer{}, false
	}
	return Answer{IsAnswer: true, Start: at + header, End: at + header + n}, true
}

// isException says whether the frame starts with an exception whose CRC is right.
func isException(b []byte) bool {
	return len(b) >= exceptionSize && b[1]&exceptionBit != 0 && b[1] != exceptionBit && b[2] != 0 && isSealed(b[:exceptionSize])
}

// displaced looks for what stands before an answer or in its place.
func displaced(frame []byte, l Layout) (a Answer, found bool, err error) {
	echo := isRequest(frame)
	if echo && len(frame) == requestSize {
		return Answer{}, true, refuse(ReasonEchoedRequest, "the request was echoed, and no answer follows")
	}
	for at := 1; at <= maxShift && at+exceptionSize <= len(frame); at++ {
		if isException(frame[at:]) {
			return Answer{}, true, exception(frame, at)
		}
		a, ok := wholeAnswer(frame, at)
		if !ok {
			continue
		}
		n := a.End - a.Start
		switch {
		case l.First >= a.Start && l.End > header+n:
			return a, true, nil
		case echo:
			return Answer{}, true, refuse(ReasonEchoedRequest, "the request was echoed before the answer, which starts at byte %d", at)
		}
		return Answer{}, true, refuse(ReasonShiftedFrame, "an answer starts at byte %d, not at byte 0", at)
	}
	switch {
	case echo:
		return Answer{}, true, refuse(ReasonEchoedRequest, "the request was echoed, and no answer with a right CRC follows")
	case cutShort(frame, 1), cutShort(frame, 2), cutShort(frame, 3):
		return Answer{}, true, refuse(ReasonShiftedFrame, "an answer that is cut short starts behind byte 0")
	case lostAddress(frame):
		return Answer{}, true, refuse(ReasonShiftedFrame, "the answer's first byte, the address, is missing")
	}
	return Answer{}, false, nil
}

// isRequest says whether the frame starts with a request to read whose CRC is right.
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

// cutShort says whether the answer starts at a byte of the frame and was read
// only as far as it would reach from the frame's start: a controller that takes
// noise for the first bytes reads as many as it expects. Behind one byte of
// noise half of the CRC is there; behind more the noise has to look like noise.
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

// lostAddress says whether the frame is an answer with a right CRC but for its
// first byte, whatever it was, and nothing but zeros behind it: 247 first bytes
// can make the CRC of anything right.
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

// likelyAnswer judges by the form, for want of a right CRC.
func likelyAnswer(b []byte) (Answer, error) {
	switch {
	case len(b) < header || b[0] < 1 || b[0] > maxAddress:
		return Answer{}, nil
	case b[1]&exceptionBit != 0:
		if isRead(b[1]&^exceptionBit) && exceptions[b[2]] != "" && (len(b) <= exceptionSize || isZero(b[exceptionSize:])) {
			return Answer{}, exception(b, 0)
		}
		return Answer{}, nil
	case !isRead(b[1]):
		return Answer{}, nil
	}
	a := Answer{IsAnswer: true, Start: header, End: header + int(b[2]), CRC: CRCWrong}
	switch {
	case a.End > len(b):
		return Answer{}, refuse(ReasonShortAnswer, "the answer's byte count is %d, and %d bytes follow it", b[2], len(b)-header)
	case a.End+trailer > len(b):
		a.CRC = CRCMissing
	case isSealed(b[:a.End+trailer]):
		a.CRC = CRCRight // of no data
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

// Check says whether the field lies within the answer's data, or in the three
// bytes before them; the CRC and what follows it are no readings. It is nil for
// a frame that is no answer. Errors are of type *Error, with ReasonOutOfRange.
func (a Answer) Check(f Field) error {
	if !a.IsAnswer || f.End() <= a.End {
		return nil
	}
	if a.Start == a.End {
		return refuse(ReasonOutOfRange, "beyond the answer's byte count of 0: %s", f.place())
	}
	n := a.End - a.Start
	return refuse(ReasonOutOfRange, "beyond the answer's byte count of %d (%s): %s", n, place(a.Start, n), f.place())
}

// CheckCRC is an error of type *Error, with ReasonWrongCRC, if the frame is an
// answer without a right CRC.
func (a Answer) CheckCRC() error {
	if a.CRC == CRCRight {
		return nil
	}
	return refuse(ReasonWrongCRC, "%s CRC", a.CRC)
}

// exception is the refusal of the exception that starts at a byte of the frame.
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

// isRead says whether the function reads, and its answer has a byte count.
func isRead(function byte) bool { return 1 <= function && function <= 4 || function == 23 }

// hasByteCount adds the functions whose answer has a byte count, too, and which
// other devices' frames could be taken for: only a right CRC tells them.
func hasByteCount(function byte) bool {
	switch function {
	case 12, 17, 20, 21:
		return true
	}
	return isRead(function)
}
