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

// errRefused means that something answers MQTT but does not know our user: it
// is not our broker.
var errRefused = errors.New("refused our user")

// connect opens an MQTT 3.1.1 session and closes it again: the broker accepts
// connections, knows its users, and serves. All its listeners are open by then,
// since it binds them before it serves any. With a client id the session is that
// client's, and stays; what the broker sends on it stays unacknowledged.
func connect(ctx context.Context, address, clientID, user, password string) error {
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
		return fmt.Errorf("%w: CONNACK return code %d", errRefused, answer[3])
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
