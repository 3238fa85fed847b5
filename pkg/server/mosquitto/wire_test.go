package mosquitto

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// wire is a client that shows each packet as it came, and acknowledges only what it
// is told to.
type wire struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

const (
	publishKind  = 0x30
	pubackKind   = 0x40
	subackKind   = 0x90
	pingrespKind = 0xd0
)

// delivery is one PUBLISH of the broker's.
type delivery struct {
	dup, retain bool
	id          uint16
	payload     string
}

// String has the payload, the packet identifier, and the flags that are set.
func (d delivery) String() string {
	text := fmt.Sprintf("%s#%d", d.payload, d.id)
	if d.dup {
		text += " DUP"
	}
	if d.retain {
		text += " RETAIN"
	}
	return text
}

func text(all []delivery) string {
	var texts []string
	for _, d := range all {
		texts = append(texts, d.String())
	}
	return strings.Join(texts, ", ")
}

// wire opens the bridge's persistent session.
func (b *bench) wire() *wire {
	b.t.Helper()
	conn, err := new(net.Dialer).DialContext(b.t.Context(), "tcp", b.broker.Address())
	require.NoError(b.t, err)
	return b.connectWire(conn, client{id: "bridge", user: "bridge", password: b.cfg.Users["bridge"], keep: true})
}

// deviceWire is a controller's connection.
func (b *bench) deviceWire() *wire {
	b.t.Helper()
	config := b.tls()
	config.Certificates = []tls.Certificate{b.certificate(b.authority, b.devices, device)}
	config.ServerName = "127.0.0.1"
	conn, err := (&tls.Dialer{Config: config}).DialContext(b.t.Context(), "tcp", b.broker.TLSAddress())
	require.NoError(b.t, err)
	return b.connectWire(conn, client{})
}

func (b *bench) connectWire(conn net.Conn, c client) *wire {
	b.t.Helper()
	b.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(b.t, conn.SetDeadline(time.Now().Add(6*patience)))
	w := &wire{t: b.t, conn: conn, in: bufio.NewReader(conn)}
	w.write(c.connectPacket())
	kind, body := w.read()
	require.Equal(b.t, byte(0x20), kind)
	require.Equal(b.t, byte(0), body[1])
	return w
}

func (w *wire) close() { _ = w.conn.Close() }

func (w *wire) write(packet []byte) {
	w.t.Helper()
	_, err := w.conn.Write(packet)
	require.NoError(w.t, err)
}

func (w *wire) read() (kind byte, body []byte) {
	w.t.Helper()
	kind, err := w.in.ReadByte()
	require.NoError(w.t, err)
	length, err := binary.ReadUvarint(w.in)
	require.NoError(w.t, err)
	body = make([]byte, length)
	_, err = io.ReadFull(w.in, body)
	require.NoError(w.t, err)
	return kind, body
}

// subscribe sends SUBSCRIBE and returns what comes before its answer.
func (w *wire) subscribe() []delivery {
	w.t.Helper()
	body := field([]byte{0, 1}, "tele/#")
	w.write(packet(0x82, append(body, 1)))
	return w.until(subackKind)
}

// ping sends PINGREQ and returns what comes before its answer.
func (w *wire) ping() []delivery {
	w.t.Helper()
	w.write(packet(0xc0, nil))
	return w.until(pingrespKind)
}

func (w *wire) until(end byte) (all []delivery) {
	w.t.Helper()
	for {
		kind, body := w.read()
		switch kind & 0xf0 {
		case publishKind:
			all = append(all, parseDelivery(kind, body))
		case end:
			return all
		}
	}
}

func (w *wire) take(number int) (all []delivery) {
	w.t.Helper()
	for len(all) < number {
		kind, body := w.read()
		require.Equal(w.t, byte(publishKind), kind&0xf0)
		all = append(all, parseDelivery(kind, body))
	}
	return all
}

func parseDelivery(kind byte, body []byte) delivery {
	d := delivery{dup: kind&8 != 0, retain: kind&1 != 0}
	body = body[2+binary.BigEndian.Uint16(body):]
	if kind&6 != 0 {
		d.id, body = binary.BigEndian.Uint16(body), body[2:]
	}
	d.payload = string(body)
	return d
}

// publish sends a message at QoS 1, the controller's own repetition with DUP, and
// waits for the PUBACK.
func (w *wire) publish(id uint16, dup bool, payload string) {
	w.t.Helper()
	kind := byte(publishKind | 2)
	if dup {
		kind |= 8
	}
	body := binary.BigEndian.AppendUint16(field(nil, deviceTopic), id)
	w.write(packet(kind, append(body, payload...)))
	require.Empty(w.t, w.until(pubackKind))
}

// acknowledge returns when the broker has read the acknowledgements.
func (w *wire) acknowledge(all ...delivery) {
	w.t.Helper()
	for _, d := range all {
		w.write(packet(pubackKind, binary.BigEndian.AppendUint16(nil, d.id)))
	}
	w.ping()
}
