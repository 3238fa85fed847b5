package soak

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
)

const (
	window         = 200 // unacknowledged messages of a controller
	connectTimeout = 10 * time.Second
	answerTimeout  = 20 * time.Second // without a PUBACK the controller connects anew
	subscribeID    = 65535
	reportID       = 65534 // of the report after a command
	maxID          = 65533 // of messages
)

// controller is one simulated controller. It sends its messages in order at QoS 1, and
// after a reconnect sends again what has no PUBACK, with DUP, as MQTT 3.1.1 has it
// (section 4.4). It notes everything in the journal before it goes out.
type controller struct {
	index     uint16
	fleet     fleet.Controller
	broker    func() string
	tls       *tls.Config
	journal   *journal
	commands  *commandBook
	allowance func() bool // takes one message of the run's allowance; false: not now, or no more
	finished  func() bool // whether the run's allowance is used up

	next     uint32
	lastTime int64
	pending  []pending // by age
	nextID   uint16
}

// pending is a message without a PUBACK.
type pending struct {
	id   uint16
	n    uint32
	kind kind
	at   int64
	sent time.Time
}

// identify loads the controller's certificate.
func (c *controller) identify(devices, caFile string) error {
	roots, err := identity.CertPool(caFile)
	if err != nil {
		return err
	}
	dir := filepath.Join(devices, c.fleet.MAC.Dashed())
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "device.crt"), filepath.Join(dir, "device.key"))
	if err != nil {
		return fmt.Errorf("loading the certificate of controller %s: %w", c.fleet.MAC, err)
	}
	c.tls = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1"}
	return nil
}

// run sends until the allowance is used up and all is acknowledged, or ctx ends.
func (c *controller) run(ctx context.Context) {
	for ctx.Err() == nil && (!c.finished() || len(c.pending) > 0) {
		if err := c.session(ctx); err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

// session is one connection to the broker. An error is why it ended; it is nil once
// everything is sent and acknowledged.
func (c *controller) session(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(bounded, "tcp", c.broker())
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	conn := tls.Client(raw, c.tls)
	if err := conn.HandshakeContext(bounded); err != nil {
		return err
	}
	reader := bufio.NewReader(conn)
	_ = conn.SetDeadline(time.Now().Add(connectTimeout))
	if err := c.logIn(conn, reader); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Time{})
	out := &connection{conn: conn, out: bufio.NewWriterSize(conn, 16<<10)}
	received := make(chan packets.ControlPacket, 2*window)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() { _ = conn.Close() }()
	reading.Go(func() {
		defer close(received)
		for {
			p, err := packets.ReadPacket(reader)
			if err != nil {
				return
			}
			received <- p
		}
	})
	defer func() { // the reader must not wait for us
		_ = conn.Close()
		for range received {
		}
	}()
	return c.serve(ctx, out, received)
}

// connection writes packets.
type connection struct {
	conn net.Conn
	out  *bufio.Writer
}

func (c *connection) write(p packets.ControlPacket) error { return p.Write(c.out) }

func (c *connection) flush() error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	return c.out.Flush()
}

func (c *controller) logIn(conn net.Conn, reader *bufio.Reader) error {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.CleanSession = "MQTT", 4, true
	p.Keepalive, p.ClientIdentifier = 60, c.fleet.MAC.Dashed()
	if err := p.Write(conn); err != nil {
		return err
	}
	answer, err := packets.ReadPacket(reader)
	if err != nil {
		return err
	}
	if ack, ok := answer.(*packets.ConnackPacket); !ok || ack.ReturnCode != packets.Accepted {
		return errors.New("the broker refused the login")
	}
	s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	s.MessageID, s.Topics, s.Qoss = subscribeID, []string{"cmnd/f2-" + string(c.fleet.MAC) + "/#"}, []byte{1}
	return s.Write(conn)
}

// serve sends, and reads what comes, until nothing is left or the connection ends.
func (c *controller) serve(ctx context.Context, out *connection, received <-chan packets.ControlPacket) error {
	for i := range c.pending {
		p := &c.pending[i]
		c.journal.add(record{c.index, p.kind, again, p.n, p.at})
		p.sent = time.Now()
		if err := out.write(c.packet(*p, true)); err != nil {
			return err
		}
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := out.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p, ok := <-received:
			if !ok {
				return errors.New("the connection ended")
			}
			if err := c.receive(out, p); err != nil {
				return err
			}
		case <-tick.C:
			if err := c.publish(out); err != nil {
				return err
			}
		}
		if len(c.pending) > 0 && time.Since(c.pending[0].sent) > answerTimeout {
			return errors.New("no PUBACK")
		}
		if c.finished() && len(c.pending) == 0 {
			return out.write(packets.NewControlPacket(packets.Disconnect))
		}
	}
}

// publish sends as many messages as the allowance and the window have room for.
func (c *controller) publish(out *connection) error {
	for len(c.pending) < window && c.allowance() {
		at := max(time.Now().UnixMicro(), c.lastTime+1)
		c.lastTime = at
		c.nextID = c.nextID%maxID + 1
		p := pending{id: c.nextID, n: c.next, kind: kindOf(c.next), at: at, sent: time.Now()}
		c.next++
		c.journal.add(record{c.index, p.kind, sent, p.n, p.at})
		c.pending = append(c.pending, p)
		if err := out.write(c.packet(p, false)); err != nil {
			return err
		}
	}
	return nil
}

func (c *controller) packet(m pending, dup bool) packets.ControlPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.Dup, p.MessageID = 1, dup, m.id
	p.TopicName = topicOf(string(c.fleet.MAC), m.kind)
	p.Payload = payloadOf(m.kind, m.n, time.UnixMicro(m.at))
	return p
}

// receive handles what the broker sent.
func (c *controller) receive(out *connection, packet packets.ControlPacket) error {
	switch p := packet.(type) {
	case *packets.PubackPacket:
		for i := range c.pending {
			if c.pending[i].id == p.MessageID {
				m := c.pending[i]
				c.pending = append(c.pending[:i], c.pending[i+1:]...)
				c.journal.add(record{c.index, m.kind, acked, m.n, time.Now().UnixMicro()})
				break
			}
		}
	case *packets.PublishPacket:
		return c.obey(out, p)
	}
	return nil
}

// obey carries out a command: it notes it, acknowledges it, and reports the state.
func (c *controller) obey(out *connection, p *packets.PublishPacket) error {
	if len(p.Payload) == 0 {
		return nil // a question
	}
	c.commands.carriedOut(string(c.fleet.MAC), string(p.Payload), time.Now())
	if p.Qos > 0 {
		ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		ack.MessageID = p.MessageID
		if err := out.write(ack); err != nil {
			return err
		}
	}
	report := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	report.Qos, report.MessageID = 1, reportID
	report.TopicName = "stat" + strings.TrimPrefix(p.TopicName, "cmnd")
	report.Payload = fmt.Appendf(nil, `{"status":%t}`, strings.Contains(string(p.Payload), `"power-flag":1`))
	return out.write(report)
}

// tryLogIn connects once. An error means that the broker did not let the controller in.
func (c *controller) tryLogIn(ctx context.Context) error { return c.once(ctx, nil) }

// publishOnce publishes a report that the journal does not have.
func (c *controller) publishOnce(ctx context.Context) error {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = "stat/f2-"+string(c.fleet.MAC)+"/access-control-mode/J3/strike-1", []byte(`{"status":false}`)
	return c.once(ctx, p)
}

// once connects, sends a packet, and disconnects.
func (c *controller) once(ctx context.Context, p packets.ControlPacket) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: c.tls}).DialContext(ctx, "tcp", c.broker())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(connectTimeout))
	if err := c.logIn(conn, bufio.NewReader(conn)); err != nil || p == nil {
		return err
	}
	return errors.Join(p.Write(conn), packets.NewControlPacket(packets.Disconnect).Write(conn))
}
