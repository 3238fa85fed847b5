package simulator

import "github.com/f2mesh/f2mesh/pkg/message/frame"

// readHoldingRegisters is the function code of the sensors' frames.
const readHoldingRegisters = 0x03

// frameHeader is address, function code and byte count; frameCRC follows the data.
const (
	frameHeader = 3
	frameCRC    = 2
)

// newFrame returns an RS-485 frame for data of a length: the response of a Modbus RTU
// device to a read of holding registers.
func newFrame(address byte, dataLength int) []byte {
	f := make([]byte, frameHeader+dataLength+frameCRC)
	f[0], f[1], f[2] = address, readHoldingRegisters, byte(dataLength) //nolint:gosec // bounded, or its low byte is what is meant
	return f
}

// seal writes the frame's CRC, low byte first.
func seal(f []byte) {
	end := len(f) - frameCRC
	crc := frame.Checksum(f[:end])
	f[end], f[end+1] = byte(crc), byte(crc>>8) //nolint:gosec // bounded, or its low byte is what is meant
}

const hexDigits = "0123456789ABCDEF"

// appendHex appends the bytes as controllers write them: "01 03 0C".
func appendHex(b, f []byte) []byte {
	for i, c := range f {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&0x0f])
	}
	return b
}
