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
	// quietTimeout bounds how long a change of session waits for what is on its
	// way. What is not done by then the broker sends again.
	quietTimeout = 3 * time.Second
	// moveTimeout bounds how long a change waits for the new session, which goes
	// on trying behind it.
	moveTimeout = 5 * time.Second
	// disconnectWait is how many milliseconds a DISCONNECT may take to be sent.
	disconnectWait = 250
)

// session is one client of the broker, from one login to the next. What arrives
// in it can be acknowledged in it alone.
type session struct {
	bridge      *Bridge
	client      mqtt.Client
	connections atomic.Uint64 // how often the broker let it in
	refused     atomic.Bool   // the last attempt was, which is logged
	open        sync.Once
	subscribed  chan struct{} // closed when it first is

	mu      sync.Mutex    // guards the fields below
	pending int           // arrived and not yet stored and acknowledged
	closing bool          // takes nothing more
	idle    chan struct{} // closed when closing and nothing is pending
}

func (b *Bridge) newSession() (s *session, err error) {
	s = &session{bridge: b, subscribed: make(chan struct{}), idle: make(chan struct{})}
	s.client, err = b.newClient(s)
	return s, err
}

// move logs in anew with the credential as it is now, under the same client id:
// the broker keeps what it has for it meanwhile. What has arrived is stored and
// acknowledged before, so that nothing has to be sent again: of a message without a
// timestamp a second copy cannot be told from a second message.
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
		b.log.Warn("mqtt credential changed, the broker does not let the bridge in yet")
	}
}

// noFilter is one that the bridge never subscribes to.
const noFilter = "f2mesh/nothing"

// drain takes nothing more, and returns when what has arrived is stored and the
// broker has read the acknowledgements, or ctx ends. Without a connection there is
// nothing to acknowledge on.
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
	// MQTT does not answer a PUBACK, but the answer to what was sent behind it says
	// that it was read. A connection that is closed with messages unread is reset,
	// and then the broker may not read what is on its way to it.
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

// arrive queues a message for storing; see queue for why it does not block.
// Acknowledging a message of an earlier connection is a no-op in paho, and the
// broker delivers it again, as it does with what a closing session drops here.
func (s *session) arrive(_ mqtt.Client, m mqtt.Message) {
	if s.take() && !s.bridge.arrived.put(arrival{Message: m, at: s.bridge.clock.now(), session: s}) {
		s.give()
	}
}

// receiveClock gives each message a microsecond of its own: PostgreSQL tells readings
// without a timestamp of their own apart by it. It is safe for concurrent use.
type receiveClock struct{ last atomic.Int64 }

// stepBack is how far the machine's clock has to go back for this one to follow.
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

// take books a message that has to be stored, unless the session is closing.
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
	s.connections.Add(1)
	s.refused.Store(false)
	token := client.Subscribe(b.cfg.Filter, 1, nil)
	go func() {
		token.Wait()
		err := token.Error()
		if sub, ok := token.(*mqtt.SubscribeToken); ok && err == nil && sub.Result()[b.cfg.Filter] == 0x80 {
			err = fmt.Errorf("the broker refused the filter %q: check its ACL", b.cfg.Filter)
		}
		if err != nil {
			b.log.Error("subscribing", "error", err)
			return
		}
		b.metrics.connected.Set(1)
		b.log.Info("mqtt connected", "broker", b.cfg.URL)
		s.open.Do(func() { close(s.subscribed) })
	}()
}

// notice has the credential looked up again if the broker refused it.
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
