package soak

import "encoding/binary"

// The bridge's link to the broker can lie, for negative controls. It speaks MQTT 3.1.1
// or 5 in the clear; a packet's first byte has its type, and of a PUBLISH DUP (0x08) and
// QoS (0x06), then comes the length (MQTT 3.1.1 section 2.2).

const (
	typePublish = 3
	typePuback  = 4
	dup         = 0x08
)

// packetReader cuts a stream of bytes into MQTT packets.
type packetReader struct{ rest []byte }

// next returns the next whole packet and where its variable header begins, nil without one.
func (r *packetReader) next() (packet []byte, header int) {
	length, shift := 0, 0
	for i := 1; i < len(r.rest) && i <= 4; i++ {
		length |= int(r.rest[i]&0x7f) << shift
		shift += 7
		if r.rest[i]&0x80 == 0 {
			header = i + 1
			break
		}
	}
	if header == 0 || len(r.rest) < header+length {
		return nil, 0
	}
	packet, r.rest = r.rest[:header+length], r.rest[header+length:]
	return packet, header
}

// acknowledgeAtOnce answers each message of QoS 1 to the broker before the bridge has seen
// it, as a client with automatic acknowledgement does, and keeps the bridge's own PUBACKs.
func acknowledgeAtOnce() rewrite {
	var fromBroker, fromBridge packetReader
	return func(fromClient bool, b []byte) (forward, back []byte) {
		if fromClient {
			fromBridge.rest = append(fromBridge.rest, b...)
			for {
				packet, _ := fromBridge.next()
				if packet == nil {
					return forward, nil
				}
				if packet[0]>>4 != typePuback {
					forward = append(forward, packet...)
				}
			}
		}
		fromBroker.rest = append(fromBroker.rest, b...)
		for {
			packet, header := fromBroker.next()
			if packet == nil {
				return forward, back
			}
			forward = append(forward, packet...)
			if packet[0]>>4 == typePublish && packet[0]&0x06 != 0 {
				topic := int(binary.BigEndian.Uint16(packet[header:]))
				id := packet[header+2+topic:]
				back = append(back, typePuback<<4, 2, id[0], id[1])
			}
		}
	}
}

// withoutDUP hides from the bridge that the broker delivers a message again.
func withoutDUP() rewrite {
	var fromBroker packetReader
	return func(fromClient bool, b []byte) (forward, back []byte) {
		if fromClient {
			return b, nil
		}
		fromBroker.rest = append(fromBroker.rest, b...)
		for {
			packet, _ := fromBroker.next()
			if packet == nil {
				return forward, nil
			}
			packet = append([]byte(nil), packet...)
			if packet[0]>>4 == typePublish {
				packet[0] &^= dup
			}
			forward = append(forward, packet...)
		}
	}
}
