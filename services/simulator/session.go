package simulator

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

const (
	connectTimeout = 20 * time.Second // to connect, log in and subscribe
	keepAlive      = 60 * time.Second
	readAhead      = 4 << 10 // bytes
	subscribeID    = 65535   // a packet identifier that no window uses
)

// session is one connection to the broker, logged in and subscribed.
type session struct {
	conn   net.Conn
	reader *bufio.Reader
}

// connect logs in and subscribes. Most controllers have a clean session: the broker
// keeps nothing for them.
func (d *device) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: d.tls}).DialContext(ctx, "tcp", d.sim.broker)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	s := &session{conn: conn, reader: bufio.NewReaderSize(conn, readAhead)}
	d.window.rewind()
	err = s.logIn(d.firmware.mac.Dashed(), d.persistent)
	if err == nil {
		err = s.subscribe(d)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) logIn(clientID string, persistent bool) error {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion = "MQTT", 4
	p.CleanSession = !persistent
	p.Keepalive = uint16(keepAlive / time.Second)
	p.ClientIdentifier = clientID
	if err := p.Write(s.conn); err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	answer, err := packets.ReadPacket(s.reader)
	if err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	ack, ok := answer.(*packets.ConnackPacket)
	if !ok {
		return errors.New("logging in: the broker did not respond with a CONNACK")
	}
	if ack.ReturnCode != packets.Accepted {
		return fmt.Errorf("logging in: %w", packets.ConnErrors[ack.ReturnCode])
	}
	return nil
}

func (s *session) subscribe(d *device) error {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = subscribeID
	p.Topics = d.firmware.filters()
	for range p.Topics {
		p.Qoss = append(p.Qoss, 1)
	}
	if err := p.Write(s.conn); err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	ack, err := s.subscribed(d)
	if err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	for _, code := range ack.ReturnCodes {
		if code > 2 {
			return errors.New("subscribing: the broker refused a filter; check the controllers' ACL")
		}
	}
	return nil
}

// subscribed reads up to the SUBACK. Messages that the broker kept for the session come
// before it.
func (s *session) subscribed(d *device) (*packets.SubackPacket, error) {
	for {
		answer, err := packets.ReadPacket(s.reader)
		if err != nil {
			return nil, err
		}
		switch p := answer.(type) {
		case *packets.SubackPacket:
			return p, nil
		case *packets.PublishPacket:
			d.receive(p)
		default:
			return nil, errors.New("the broker did not respond with a SUBACK")
		}
	}
}

// disconnect sends a DISCONNECT. It waits a second at most.
func (s *session) disconnect() {
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = packets.NewControlPacket(packets.Disconnect).Write(s.conn)
}

// read hands PUBACKs and commands to the device until the connection ends.
func (s *session) read(d *device) error {
	for {
		head, err := s.reader.Peek(1)
		if err != nil {
			return err
		}
		d.heard.Store(true)
		if head[0] == typePuback {
			err = s.readAck(d)
		} else {
			err = s.readOther(d)
		}
		if err != nil {
			return err
		}
	}
}

// ackSize is the length of a PUBACK in bytes.
const ackSize = 4

func (s *session) readAck(d *device) error {
	p, err := s.reader.Peek(ackSize)
	if err != nil {
		return err
	}
	id := uint16(p[2])<<8 | uint16(p[3])
	_, _ = s.reader.Discard(ackSize)
	d.acknowledged(id)
	return nil
}

func (s *session) readOther(d *device) error {
	p, err := packets.ReadPacket(s.reader)
	if err != nil {
		return err
	}
	if publish, ok := p.(*packets.PublishPacket); ok {
		d.receive(publish)
	}
	return nil
}
