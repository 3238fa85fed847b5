package frame

// decodeText reads ASCII up to the padding of NULs at its end. Anything but
// printable characters, tab, CR and LF is refused: it is a wrong offset or
// order rather than text, and PostgreSQL takes no NUL.
func decodeText(b []byte, o order) (Value, error) {
	var buf [MaxLength]byte
	text := buf[:len(b)]
	for i := range text {
		text[i] = b[o.index(i, len(b))]
	}
	for len(text) > 0 && text[len(text)-1] == 0 {
		text = text[:len(text)-1]
	}
	for _, c := range text {
		if !isText(c) {
			return Value{}, &Error{Reason: ReasonBadASCII}
		}
	}
	return Value{Text: string(text), IsText: true}, nil
}

// encodeText inverts decodeText.
func encodeText(b []byte, text string, o order) error {
	if len(text) > len(b) {
		return &Error{Reason: ReasonOverflow}
	}
	for i := range len(text) {
		if !isText(text[i]) {
			return &Error{Reason: ReasonBadASCII}
		}
	}
	for i := range b {
		var c byte
		if i < len(text) {
			c = text[i]
		}
		b[o.index(i, len(b))] = c
	}
	return nil
}

func isText(c byte) bool {
	return ' ' <= c && c <= '~' || c == '\t' || c == '\r' || c == '\n'
}
