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
	return openSession(ctx, address, "", user, password)
}

// openSession is LogIn, with a client id on that client's session, which stays;
// what the broker sends on it stays unacknowledged.
func openSession(ctx context.Context, address, clientID, user, password string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(connectPacket(clientID, user, password)); err != nil {
		return err
	}
	var answer [4]byte // CONNACK: type, length 2, flags, return code
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != 0x20 || answer[1] != 2 {
		return fmt.Errorf("unexpected answer to CONNECT: % x", answer)
	}
	if answer[3] != 0 {
		return fmt.Errorf("%w: CONNACK return code %d", ErrRefused, answer[3])
	}
	_, err = conn.Write([]byte{0xe0, 0}) // DISCONNECT
	return err
}

// connectPacket is CONNECT with a password, and with a clean session if there is
// no client id (MQTT 3.1.1 section 3.1).
func connectPacket(clientID, user, password string) []byte {
	const userPassword, cleanSession = 0xc0, 0x02
	const keepAlive = 10
	flags := byte(userPassword)
	if clientID == "" {
		flags |= cleanSession
	}
	body := field(nil, "MQTT")
	body = append(body, 4, flags, 0, keepAlive)
	body = field(body, clientID)
	body = field(body, user)
	body = field(body, password)
	packet := binary.AppendUvarint([]byte{0x10}, uint64(len(body)))
	return append(packet, body...)
}

func field(packet []byte, text string) []byte {
	packet = binary.BigEndian.AppendUint16(packet, uint16(len(text))) //nolint:gosec // user and password are short
	return append(packet, text...)
}
