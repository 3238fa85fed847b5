package mosquitto

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// questioner speaks as much of MQTT 5 as tells whether a message was denied, which
// 3.1.1 does not.
type questioner struct {
	conn net.Conn
	in   *bufio.Reader
}

const (
	notAuthorized   = 0x87 // and above 0x80 all are failures
	firstOfFailures = 0x80
)

func (q *questioner) connect(user string) error {
	const cleanStartUser = 0x82
	body := field(nil, "MQTT")
	body = append(body, 5, cleanStartUser, 0, 0, 0) // no keep-alive, no properties
	body = field(body, "")
	body = field(body, user)
	if _, err := q.conn.Write(packet(0x10, body)); err != nil {
		return err
	}
	kind, answer, err := q.read()
	if err != nil {
		return err
	}
	if kind != 0x20 || len(answer) < 2 || answer[1] != 0 {
		return fmt.Errorf("unexpected answer to CONNECT: % x", answer)
	}
	return nil
}

// publish reports whether the broker took a message at QoS 1.
func (q *questioner) publish(name string) (granted bool, err error) {
	body := field(nil, name)
	body = append(body, 0, 1, 0) // packet identifier 1, no properties
	if _, err := q.conn.Write(packet(0x32, body)); err != nil {
		return false, err
	}
	kind, answer, err := q.read()
	switch {
	case err != nil:
		return false, err
	case kind != 0x40 || len(answer) < 2:
		return false, fmt.Errorf("unexpected answer to PUBLISH: %x % x", kind, answer)
	case len(answer) == 2 || answer[2] < firstOfFailures:
		return true, nil
	case answer[2] == notAuthorized:
		return false, nil
	}
	return false, fmt.Errorf("unexpected answer to PUBLISH: reason %#x", answer[2])
}

func (q *questioner) read() (kind byte, body []byte, err error) {
	if kind, err = q.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(q.in)
	if err != nil {
		return 0, nil, err
	}
	const longest = 1 << 16
	if length > longest {
		return 0, nil, fmt.Errorf("a packet of %d bytes", length)
	}
	body = make([]byte, length)
	_, err = io.ReadFull(q.in, body)
	return kind, body, err
}
