package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

const (
	// quietTimeout is how long a change of session waits until messages that have arrived
	// are stored. The broker sends the others again.
	quietTimeout = 3 * time.Second
	// moveTimeout is how long a change waits for the new session, which tries to connect
	// even after that.
	moveTimeout = 5 * time.Second
	// disconnectWait is how many milliseconds a DISCONNECT may take to be sent.
	disconnectWait = 250
)

// session is one client of the broker, from one login to the next. A message can only be
// acknowledged in the session in which it arrived.
type session struct {
	bridge      *Bridge
	client      mqtt.Client
	connections atomic.Uint64 // successful connections
	refused     atomic.Bool   // the last login was refused, and that was logged
	lost        atomic.Bool   // the connection was lost, and that it is tried again was logged
	open        sync.Once
	subscribed  chan struct{} // closed at the first subscription

	mu      sync.Mutex    // guards the fields below
	pending int           // messages that arrived and are not acknowledged yet
	closing bool          // no further message is taken
	idle    chan struct{} // closed when closing and nothing is pending
}

func (b *Bridge) newSession() (s *session, err error) {
	s = &session{bridge: b, subscribed: make(chan struct{}), idle: make(chan struct{})}
	s.client, err = b.newClient(s)
	return s, err
}

// move logs in again with the current credential and the same client id, so that the
// broker keeps its messages meanwhile. Messages that have arrived are stored and
// acknowledged first, so that the broker sends none of them again: a copy of a message
// without a timestamp cannot be told from a second message.
func (b *Bridge) move(ctx context.Context) {
	b.moves.Lock()
	defer b.moves.Unlock()
	if ctx.Err() != nil {
		return
	}
	started := time.Now()
	next, err := b.newSession()
	if err != nil {
		b.log.Error("mqtt credential not changed", "error", err)
		return
	}
	quiet, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	last := b.session.Load()
	last.drain(quiet)
	b.metrics.connected.Set(0)
	last.client.Disconnect(disconnectWait)
	b.session.Store(next)
	next.client.Connect()
	select {
	case <-next.subscribed:
		b.log.Info("mqtt credential changed", "took", time.Since(started).Round(time.Millisecond).String())
	case <-ctx.Done():
	case <-time.After(moveTimeout):
		b.log.Warn("mqtt credential changed, but the broker has not accepted it yet")
	}
}

// noFilter is a filter that the bridge never subscribes to.
const noFilter = "f2mesh/nothing"

// drain takes no further message. It returns when the messages that have arrived are
// stored and the broker has read the acknowledgements, when there is no connection to
// acknowledge on, or when ctx ends.
func (s *session) drain(ctx context.Context) {
	s.mu.Lock()
	s.closing = true
	if s.pending == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
	case <-ctx.Done():
		return
	}
	if !s.client.IsConnectionOpen() {
		return
	}
	// A PUBACK has no response. But the response to an UNSUBSCRIBE that was sent after it
	// proves that the broker has read the PUBACK. This is needed: closing a connection
	// with unread data resets it, and the broker may then not read the last PUBACKs.
	answer := s.client.Unsubscribe(noFilter)
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for s.client.IsConnectionOpen() {
		select {
		case <-answer.Done():
			return
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// arrive queues a message; see queue for why it does not block. A closing session drops
// it, and the broker delivers it again. So it does for a message of an earlier connection,
// whose acknowledgement paho ignores.
func (s *session) arrive(_ mqtt.Client, m mqtt.Message) {
	if s.take() && !s.bridge.arrived.put(arrival{Message: m, at: s.bridge.clock.now(), session: s}) {
		s.give()
	}
}

// receiveClock gives each message its own microsecond: it is the key of readings without a
// timestamp in PostgreSQL. It is safe for concurrent use.
type receiveClock struct{ last atomic.Int64 }

// stepBack is how far the machine's clock must step back before receiveClock follows it.
const stepBack = time.Second

func (c *receiveClock) now() time.Time {
	for {
		last, at := c.last.Load(), time.Now().UnixMicro()
		if at <= last && last-at < stepBack.Microseconds() {
			at = last + 1
		}
		if c.last.CompareAndSwap(last, at) {
			return time.UnixMicro(at)
		}
	}
}

// take counts a message as pending, unless the session is closing.
func (s *session) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.pending++
	return true
}

// acknowledge acknowledges one of the session's messages.
func (s *session) acknowledge(m mqtt.Message) {
	m.Ack()
	s.give()
}

func (s *session) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending--
	if s.closing && s.pending == 0 {
		close(s.idle)
	}
}

func (s *session) subscribe(client mqtt.Client) {
	b := s.bridge
	connection := s.connections.Add(1)
	s.refused.Store(false)
	s.lost.Store(false)
	token := client.Subscribe(b.cfg.Filter, 1, nil)
	go func() {
		token.Wait()
		err := token.Error()
		if sub, ok := token.(*mqtt.SubscribeToken); ok && err == nil && sub.Result()[b.cfg.Filter] == 0x80 {
			err = fmt.Errorf("the broker refused the filter %q: check the ACL of the bridge's user", b.cfg.Filter)
		}
		if err != nil {
			if client.IsConnectionOpen() && s.connections.Load() == connection { // otherwise the next one subscribes
				b.log.Error("subscribing to mqtt", "error", err)
			}
			return
		}
		b.metrics.connected.Set(1)
		b.log.Info("mqtt connected", "broker", b.cfg.URL)
		s.open.Do(func() { close(s.subscribed) })
	}()
}

// reconnecting logs the first attempt after a lost connection.
func (s *session) reconnecting(mqtt.Client, *mqtt.ClientOptions) {
	if !s.lost.Swap(true) {
		s.bridge.log.Info("connecting to mqtt", "broker", s.bridge.cfg.URL)
	}
}

// notice looks the credential up again if the broker refused it.
func (s *session) notice(_ mqtt.Client, n mqtt.ConnectionNotification) {
	failed, ok := n.(mqtt.ConnectionNotificationFailed)
	if !ok || !errors.Is(failed.Reason, packets.ErrorRefusedBadUsernameOrPassword) && !errors.Is(failed.Reason, packets.ErrorRefusedNotAuthorised) {
		return
	}
	if !s.refused.Swap(true) {
		s.bridge.log.Warn("mqtt login refused", "error", failed.Reason)
	}
	s.bridge.credential.Refused()
}
