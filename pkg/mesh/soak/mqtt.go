package soak

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// The bridge's link to the broker can lie, for negative controls. It speaks MQTT 3.1.1
// or 5 in the clear; a packet's first byte has its type, and of a PUBLISH the QoS (0x06),
// then comes the length (MQTT 3.1.1 section 2.2).

const (
	typePublish = 3
	typePuback  = 4
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

// withOtherIdentifiers gives the bridge the broker's messages under other packet identifiers,
// which are others again in the next connection.
func withOtherIdentifiers() rewrite {
	var fromBroker, fromBridge packetReader
	distance := 1 + rand.IntN(math.MaxUint16-1) //nolint:gosec // protects nothing
	move := func(id []byte, by int) {
		moved := (int(binary.BigEndian.Uint16(id)) - 1 + by + math.MaxUint16) % math.MaxUint16
		binary.BigEndian.PutUint16(id, uint16(moved+1)) //nolint:gosec // from 1 to 65,535
	}
	return func(fromClient bool, b []byte) (forward, back []byte) {
		from := &fromBroker
		if fromClient {
			from = &fromBridge
		}
		from.rest = append(from.rest, b...)
		for {
			packet, header := from.next()
			if packet == nil {
				return forward, nil
			}
			packet = bytes.Clone(packet)
			switch {
			case fromClient && packet[0]>>4 == typePuback:
				move(packet[header:], -distance)
			case !fromClient && packet[0]>>4 == typePublish && packet[0]&0x06 != 0:
				move(packet[header+2+int(binary.BigEndian.Uint16(packet[header:])):], distance)
			}
			forward = append(forward, packet...)
		}
	}
}
