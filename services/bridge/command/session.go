package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	pahologger "github.com/eclipse/paho.golang/paho/log"
	pahosession "github.com/eclipse/paho.golang/paho/session"
)

// session is the client's MQTT session state, for paho. It keeps the packets in flight on
// one connection and drops them with the connection; paho's own session would send them
// again on the next.
//
// Commands have QoS 2, because only QoS 2 can tell for certain that a message was not
// published. The broker reads the PUBLISH, starts to count its expiry and responds with
// PUBREC, but does not deliver the message before PUBREL. So a PUBLISH that the broker
// read too late is never released, and the broker drops it with the connection.
type session struct {
	mu      sync.Mutex
	conn    io.Writer // nil while there is none
	last    uint16    // packet identifier
	waiting map[uint16]exchange
}

// exchange is a packet that waits for its response.
type exchange struct {
	answer  chan<- packets.ControlPacket // has room for one
	attempt *attempt                     // of a PUBLISH
}

var _ pahosession.SessionManager = (*session)(nil)

func newSession() *session { return &session{waiting: map[uint16]exchange{}} }

// ConAckReceived starts a connection. Its session is always a clean one.
func (s *session) ConAckReceived(conn io.Writer, _ *packets.Connect, ack *packets.Connack) error {
	if ack.SessionPresent {
		return errors.New("the MQTT broker kept the session although a clean start was requested")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose()
	s.conn = conn
	return nil
}

// ConnectionLost drops the packets in flight.
func (s *session) ConnectionLost(*packets.Disconnect) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose()
	return nil
}

// lose drops the packets in flight. The caller holds mu.
func (s *session) lose() {
	s.conn = nil
	for id, x := range s.waiting {
		delete(s.waiting, id)
		x.answer <- packets.ControlPacket{}
	}
}

// attemptKey is the context key of the attempt that a packet belongs to.
type attemptKey struct{}

// AddToSession gives a packet its identifier.
func (s *session) AddToSession(ctx context.Context, packet pahosession.Packet, answer chan<- packets.ControlPacket) error {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return pahosession.ErrNoConnection
	}
	for range 1 << 16 {
		s.last++
		if _, taken := s.waiting[s.last]; s.last != 0 && !taken {
			packet.SetIdentifier(s.last)
			s.waiting[s.last] = exchange{answer: answer, attempt: a}
			if a != nil {
				a.offer()
			}
			return nil
		}
	}
	return pahosession.ErrPacketIdentifiersExhausted
}

// PacketReceived handles a response of the broker.
func (s *session) PacketReceived(received *packets.ControlPacket, _ chan<- *packets.Publish) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := received.Content.(*packets.Pubrec); ok && p.ReasonCode < firstFailure {
		return s.release(p.PacketID)
	}
	id := received.PacketID()
	x, ok := s.waiting[id]
	if !ok {
		return nil
	}
	delete(s.waiting, id)
	if x.attempt != nil && received.Type == packets.PUBCOMP {
		x.attempt.take()
	}
	x.answer <- *received
	return nil
}

// firstFailure is the smallest reason code that means failure.
const firstFailure = 0x80

// release writes PUBREL, unless the broker took too long. The caller holds mu.
func (s *session) release(id uint16) error {
	x, ok := s.waiting[id]
	if !ok || s.conn == nil || x.attempt == nil || !x.attempt.release(time.Now()) {
		return nil
	}
	if _, err := (&packets.Pubrel{PacketID: id}).WriteTo(s.conn); err != nil {
		return fmt.Errorf("releasing a command: %w", err)
	}
	return nil
}

// drop closes the connection to a broker that does not respond.
func (s *session) drop() {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if c, ok := conn.(io.Closer); ok {
		_ = c.Close()
	}
}

// connected reports whether there is a connection.
func (s *session) connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// Ack, Close and the loggers have nothing to do: no message is received with QoS 1.
func (s *session) Ack(*packets.Publish) error       { return nil }
func (s *session) Close() error                     { return nil }
func (s *session) SetErrorLogger(pahologger.Logger) {}
func (s *session) SetDebugLogger(pahologger.Logger) {}
