package mosquitto

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const pollInterval = 5 * time.Millisecond

// ErrRefused means that a broker answers and does not let the user in.
var ErrRefused = errors.New("the broker refuses the user")

// LogIn opens an MQTT 3.1.1 session and closes it again: the broker accepts
// connections, knows the user, and serves. All its listeners are open by then,
// since it binds them before it serves any.
func LogIn(ctx context.Context, address, user, password string) error {
	return connect(ctx, address, client{user: user, password: password})
}

func connect(ctx context.Context, address string, c client) error {
	conn, err := dial(ctx, address, c)
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte{0xe0, 0}) // DISCONNECT
	_ = conn.Close()
	return err
}

// dial returns a connection that the broker serves, until ctx's deadline.
func dial(ctx context.Context, address string, c client) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	present, err := c.logIn(conn)
	if err == nil && c.filter != "" && !present {
		err = subscribe(conn, c.filter, 1)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// logIn reports whether the broker had the client's session.
func (c client) logIn(conn net.Conn) (present bool, err error) {
	if _, err := conn.Write(c.connectPacket()); err != nil {
		return false, err
	}
	var answer [4]byte // CONNACK: type, length 2, flags, return code
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return false, err
	}
	if answer[0] != 0x20 || answer[1] != 2 {
		return false, fmt.Errorf("unexpected answer to CONNECT: % x", answer)
	}
	if answer[3] != 0 {
		return false, fmt.Errorf("%w: CONNACK return code %d", ErrRefused, answer[3])
	}
	return answer[2]&1 != 0, nil
}

// subscribe is for a session without messages: the next packet is the response (MQTT 3.1.1
// section 3.8).
func subscribe(conn net.Conn, filter string, qos byte) error {
	const packetID = 1
	if _, err := conn.Write(packet(0x82, append(field([]byte{0, packetID}, filter), qos))); err != nil {
		return err
	}
	kind, answer, err := readPacket(conn, largestLogLine)
	if err != nil {
		return err
	}
	if kind != 0x90 || len(answer) != 3 || answer[2] != qos {
		return fmt.Errorf("unexpected answer to SUBSCRIBE: % x", answer)
	}
	return nil
}

// client is whom a connection is for. Without an id the broker chooses one.
type client struct {
	id, user, password string
	// keep opens the client's session, which stays; what the broker sends on it stays
	// unacknowledged. Otherwise the session of this id is ended, with what is queued.
	keep bool
	// filter is what a session that the broker does not have yet subscribes to; "" for none.
	filter string
}

// connectPacket is CONNECT with a password (MQTT 3.1.1 section 3.1).
func (c client) connectPacket() []byte {
	const userPassword, cleanSession = 0xc0, 0x02
	const keepAlive = 15 * 60 // seconds; a broker that reads a long ACL serves nobody for minutes
	flags := byte(userPassword)
	if !c.keep {
		flags |= cleanSession
	}
	body := field(nil, "MQTT")
	body = binary.BigEndian.AppendUint16(append(body, 4, flags), keepAlive)
	body = field(body, c.id)
	body = field(body, c.user)
	body = field(body, c.password)
	return packet(0x10, body)
}

func packet(kind byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{kind}, uint64(len(body))), body...)
}

func field(packet []byte, text string) []byte {
	packet = binary.BigEndian.AppendUint16(packet, uint16(len(text))) //nolint:gosec // users, passwords and topics are short
	return append(packet, text...)
}
