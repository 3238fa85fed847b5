package mosquitto

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// stranger is a MAC that no device has.
const stranger topic.MAC = "000000000000"

func ask(ctx context.Context, socket string, sample Sample, spell spellings) error {
	if err := askDevice(ctx, socket, stranger, nil, []topic.MAC{stranger}, spell); err != nil {
		return err
	}
	for _, mac := range sample.In {
		if err := askDevice(ctx, socket, mac, []topic.MAC{mac}, []topic.MAC{stranger}, spell); err != nil {
			return err
		}
	}
	for _, mac := range sample.Out {
		if err := askDevice(ctx, socket, mac, nil, []topic.MAC{mac}, spell); err != nil {
			return err
		}
	}
	return nil
}

// askDevice publishes as a device and compares the broker's answers.
func askDevice(ctx context.Context, socket string, as topic.MAC, may, mayNot []topic.MAC, spell spellings) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	s := &questioner{conn: conn, in: bufio.NewReader(conn)}
	if err := s.connect(as.Dashed()); err != nil {
		return err
	}
	for _, macs := range []struct {
		of    []topic.MAC
		spell spellings
		want  bool
	}{{may, spell, true}, {mayNot, allSpellings, false}} {
		for _, mac := range macs.of {
			for _, spelling := range macs.spell(mac) {
				granted, err := s.publish("tele/f2-" + spelling + "/trial")
				if err != nil {
					return err
				}
				if granted != macs.want {
					return fmt.Errorf("ACL check: %s publishing as %s: got %t, want %t", as, spelling, granted, macs.want)
				}
			}
		}
	}
	return nil
}

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
