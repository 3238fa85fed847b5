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
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(connectPacket(user, password)); err != nil {
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

// connectPacket is CONNECT with a clean session, no client id, and a password
// (MQTT 3.1.1 section 3.1).
func connectPacket(user, password string) []byte {
	const cleanSessionUserPassword = 0xc2
	const keepAlive = 10
	body := field(nil, "MQTT")
	body = append(body, 4, cleanSessionUserPassword, 0, keepAlive)
	body = field(body, "")
	body = field(body, user)
	body = field(body, password)
	packet := binary.AppendUvarint([]byte{0x10}, uint64(len(body)))
	return append(packet, body...)
}

func field(packet []byte, text string) []byte {
	packet = binary.BigEndian.AppendUint16(packet, uint16(len(text))) //nolint:gosec // user and password are short
	return append(packet, text...)
}
