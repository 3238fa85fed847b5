package frame

// ParseHex appends the bytes of src, in hex, to dst: two digits a byte, in any case. Between the
// bytes, before the first and after the last there may be any number of separators: spaces, tabs,
// CR, LF, commas, semicolons, dashes and colons. A byte that is the first or follows a separator
// may have a "0x". After an error, which is of type *Error with ReasonBadHex, it returns dst
// unchanged. It does not change or keep src, and allocates only if dst must grow.
func ParseHex(dst, src []byte) ([]byte, error) {
	out := dst
	for i := 0; i < len(src); {
		high := digits[src[i]]
		if high == separator {
			i++
			continue
		}
		low := byte(noDigit)
		if i+1 < len(src) {
			low = digits[src[i+1]]
		}
		if high|low > 0xf {
			if !isPrefix(src, i) {
				return dst, refuse(ReasonBadHex, "not hex at character %d: a byte is two hex digits", i+1)
			}
			i += 2
			continue
		}
		out = append(out, high<<4|low)
		i += 2
	}
	return out, nil
}

// isPrefix reports whether there is the "0x" of a byte at i.
func isPrefix(src []byte, i int) bool {
	return i+2 < len(src) && src[i] == '0' && src[i+1]|0x20 == 'x' && digits[src[i+2]] <= 0xf &&
		(i == 0 || digits[src[i-1]] == separator)
}

// Values of digits for bytes that are not digits.
const (
	separator = 0xfe
	noDigit   = 0xff
)

// digits has the value of each hex digit.
var digits = func() (table [256]byte) {
	for i := range table {
		table[i] = noDigit
	}
	for i, c := range []byte("0123456789abcdef") {
		table[c] = byte(i)
	}
	for i, c := range []byte("ABCDEF") {
		table[c] = byte(10 + i)
	}
	for _, c := range []byte(" \t\r\n,;-:") {
		table[c] = separator
	}
	return table
}()
