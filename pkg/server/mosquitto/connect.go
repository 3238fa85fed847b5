package mosquitto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// largestConnect bounds CONNECT with its will.
const largestConnect = 16 << 10

var errNotConnect = errors.New("no CONNECT of MQTT 3.1, 3.1.1 or 5")

// readConnect reads the body of the first packet, and not a byte more. Of another packet it
// reads the first byte alone: who speaks no MQTT must not hold the connection.
func readConnect(r io.Reader) ([]byte, error) {
	kind, err := byteReader{r}.ReadByte()
	if err != nil {
		return nil, err
	}
	if kind != 0x10 {
		return nil, errNotConnect
	}
	return readBody(r, largestConnect)
}

// readPacket reads one packet of at most that many bytes, and not a byte more.
func readPacket(r io.Reader, largest uint64) (kind byte, body []byte, err error) {
	if kind, err = (byteReader{r}).ReadByte(); err != nil {
		return 0, nil, err
	}
	body, err = readBody(r, largest)
	return kind, body, err
}

// readBody reads the length of a packet and what follows.
func readBody(r io.Reader, largest uint64) ([]byte, error) {
	length, err := binary.ReadUvarint(byteReader{r}) // at most 10 bytes, of which MQTT allows 4: the bound says so
	if err != nil {
		return nil, err
	}
	if length > largest {
		return nil, fmt.Errorf("a packet of %d bytes", length)
	}
	body := make([]byte, length)
	_, err = io.ReadFull(r, body)
	return body, err
}

// byteReader does not read ahead.
type byteReader struct{ io.Reader }

func (b byteReader) ReadByte() (byte, error) {
	var one [1]byte
	_, err := io.ReadFull(b.Reader, one[:])
	return one[0], err
}

// Parts of CONNECT (MQTT 3.1.1 and 5, section 3.1).
const (
	flagCleanSession, flagWill, flagPassword, flagUser = 0x02, 0x04, 0x40, 0x80
	propertySessionExpiry                              = 0x11
)

// admit makes the packet that the broker gets of the body of a person's CONNECT: with
// the key behind the password, and with a session that ends with the connection.
func admit(body []byte, key string) ([]byte, error) {
	c := &cutter{rest: body}
	protocol, level := c.field(), c.take(1)
	flags, keepAlive := c.take(1), c.take(2)
	if c.err != nil || level[0] < 3 || level[0] > 5 {
		return nil, errNotConnect
	}
	set := flags[0]
	out := field(nil, string(protocol))
	out = append(out, level[0], set|flagCleanSession)
	out = append(out, keepAlive...)
	if level[0] == 5 {
		out = appendProperties(out, c.withoutExpiry())
	}
	out = field(out, string(c.field())) // the client id, which the broker does not take
	if set&flagWill != 0 {
		if level[0] == 5 {
			out = appendProperties(out, c.take(c.length()))
		}
		out = field(out, string(c.field()))
		out = field(out, string(c.field()))
	}
	if set&flagUser != 0 {
		out = field(out, string(c.field()))
	}
	if set&flagPassword != 0 {
		password := string(c.field()) + key
		if len(password) > largestConnect {
			return nil, errNotConnect
		}
		out = field(out, password)
	}
	if c.err != nil || len(c.rest) > 0 {
		return nil, errNotConnect
	}
	return packet(0x10, out), nil
}

func appendProperties(packet, properties []byte) []byte {
	return append(binary.AppendUvarint(packet, uint64(len(properties))), properties...)
}

// cutter takes a packet apart. After an error it gives nothing more.
type cutter struct {
	rest []byte
	err  error
}

func (c *cutter) take(n int) []byte {
	if c.err != nil || n < 0 || n > len(c.rest) {
		c.err = errNotConnect
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *cutter) field() []byte {
	length := c.take(2)
	if c.err != nil {
		return nil
	}
	return c.take(int(binary.BigEndian.Uint16(length)))
}

// length is a variable byte integer.
func (c *cutter) length() int {
	n, size := binary.Uvarint(c.rest)
	if size <= 0 || n > largestConnect {
		c.err = errNotConnect
		return 0
	}
	c.take(size)
	return int(n)
}

// withoutExpiry are the properties of CONNECT but for how long its session outlasts
// the connection.
func (c *cutter) withoutExpiry() []byte {
	all := &cutter{rest: c.take(c.length())}
	var kept []byte
	for c.err == nil && all.err == nil && len(all.rest) > 0 {
		before := all.rest
		id := all.take(1)[0]
		switch id {
		case 0x17, 0x19: // whether problems, and response information, are asked for
			all.take(1)
		case 0x21, 0x22: // receive maximum, topic alias maximum
			all.take(2)
		case propertySessionExpiry, 0x27: // maximum packet size
			all.take(4)
		case 0x15, 0x16: // authentication method and data
			all.field()
		case 0x26: // user property
			all.field()
			all.field()
		default:
			all.err = errNotConnect
		}
		if id != propertySessionExpiry && all.err == nil {
			kept = append(kept, before[:len(before)-len(all.rest)]...)
		}
	}
	if all.err != nil {
		c.err = all.err
	}
	return kept
}
