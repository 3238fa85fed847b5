package frame

// decodeText decodes ASCII without the padding of NULs at its end. It refuses everything except
// printable characters, tab, CR and LF: other bytes are a sign of a wrong offset or order, and
// PostgreSQL accepts no NUL.
func decodeText(b []byte, o order) (FieldValue, error) {
	var buf [MaxLength]byte
	text := buf[:len(b)]
	for i := range text {
		text[i] = b[o.index(i, len(b))]
	}
	for len(text) > 0 && text[len(text)-1] == 0 {
		text = text[:len(text)-1]
	}
	for i, c := range text {
		if !isText(c) {
			return FieldValue{}, refuse(ReasonBadASCII, "byte %d of the text is neither printable ASCII nor tab, CR or LF", i)
		}
	}
	return FieldValue{Text: string(text), IsText: true}, nil
}

// encodeText is the inverse of decodeText.
func encodeText(b []byte, text string, o order) error {
	if len(text) > len(b) {
		return refuse(ReasonOverflow, "the text has %d bytes; the field has %d", len(text), len(b))
	}
	for i := range len(text) {
		if !isText(text[i]) {
			return refuse(ReasonBadASCII, "byte %d of the text is neither printable ASCII nor tab, CR or LF", i)
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
