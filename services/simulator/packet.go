package simulator

// The first bytes of the packets that are written or read without paho's codec
// (MQTT 3.1.1, sections 3.3 and 3.4).
const (
	typePublishQoS1 = 0x32
	typePuback      = 0x40
)

// appendPublish appends a PUBLISH with QoS 1 and returns the offset of its payload.
func appendPublish(b []byte, topic string, id uint16, payload []byte) (packet []byte, body int) {
	b = append(b, typePublishQoS1)
	b = appendLength(b, 2+len(topic)+2+len(payload))
	b = append(b, byte(len(topic)>>8), byte(len(topic))) //nolint:gosec // bounded, or its low byte is what is meant
	b = append(b, topic...)
	b = append(b, byte(id>>8), byte(id)) //nolint:gosec // bounded, or its low byte is what is meant
	return append(b, payload...), len(b)
}

// appendLength appends a remaining length (MQTT 3.1.1, section 2.2.3).
func appendLength(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n)) //nolint:gosec // bounded, or its low byte is what is meant
}
