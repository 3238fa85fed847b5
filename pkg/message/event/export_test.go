package event

// ParseAny is parseAny.
func (d *Decoded) ParseAny(subject string, data []byte) error { return d.parseAny(subject, data) }
