package frame

// ParseHex appends to dst the bytes that src spells in hex: two digits a byte
// in any case, with any number of spaces before, between and after bytes. On
// an error, which is of type *Error with ReasonBadHex, it returns dst as it
// was. It does not change or keep src, and allocates only if dst has to grow.
func ParseHex(dst, src []byte) ([]byte, error) {
	out := dst
	for i := 0; i < len(src); {
		if src[i] == ' ' {
			i++
			continue
		}
		if i+1 == len(src) {
			return dst, &Error{Reason: ReasonBadHex}
		}
		high, low := digits[src[i]], digits[src[i+1]]
		if high|low > 0xf {
			return dst, &Error{Reason: ReasonBadHex}
		}
		out = append(out, high<<4|low)
		i += 2
	}
	return out, nil
}

// digits gives the value of each hex digit, and 0xff for any other byte.
var digits = func() (table [256]byte) {
	for i := range table {
		table[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		table[c] = byte(i)
	}
	for i, c := range []byte("ABCDEF") {
		table[c] = byte(10 + i)
	}
	return table
}()
