package frame

import "slices"

// Checksum returns the CRC of Modbus RTU (MODBUS over Serial Line 1.02, section 6.2.2). It
// follows the bytes, low byte first.
func Checksum(b []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, c := range b {
		crc = crc>>8 ^ crcTable[byte(crc)^c] //nolint:gosec // the low byte is what is meant
	}
	return crc
}

// isSealed reports whether the bytes end with their CRC.
func isSealed(b []byte) bool {
	end := len(b) - trailer
	return Checksum(b[:end]) == uint16(b[end])|uint16(b[end+1])<<8
}

// firstByte computes the CRC backwards: it returns the byte that, before the bytes, gives the
// CRC, or -1 if there is none.
func firstByte(b []byte, crc uint16) int {
	for _, c := range slices.Backward(b) {
		crc = unshift(crc) ^ uint16(c)
	}
	if crc = unshift(crc) ^ 0xFFFF; crc > 0xFF {
		return -1
	}
	return int(crc)
}

// unshift is the inverse of Checksum's step for a byte.
func unshift(crc uint16) uint16 {
	for range 8 {
		if crc&0x8000 != 0 {
			crc = (crc^0xA001)<<1 | 1
		} else {
			crc <<= 1
		}
	}
	return crc
}

var crcTable = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i)
		for range 8 {
			carry := crc & 1
			crc >>= 1
			if carry == 1 {
				crc ^= 0xA001
			}
		}
		table[i] = crc
	}
	return table
}()
