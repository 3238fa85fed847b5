package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"golang.org/x/sync/semaphore"

	"github.com/f2mesh/f2mesh/pkg/mqttconn"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

const (
	// concurrency is how many commands may be in flight to the broker: less than any
	// broker's limit (Mosquitto's default is 20).
	concurrency = 16
	// completion is how long the broker may take to respond to a PUBREL.
	completion = 5 * time.Second
	// quietTimeout is how long a change of the credential waits for commands in flight.
	quietTimeout = 3 * time.Second
	// moveTimeout is how long a change of the credential waits for the new connection.
	moveTimeout = 5 * time.Second
	dialTimeout = 10 * time.Second
	keepAlive   = 20 // seconds
	// receiveMaximum is how many lines of the broker's log may wait.
	receiveMaximum = 1000
	// logTopic is where Mosquitto logs which clients connect and disconnect.
	logTopic = "$SYS/broker/log/N"
)

// publisher publishes commands on a connection of its own: MQTT 5, with a session that
// ends with the connection.
type publisher struct {
	broker     *url.URL
	clientID   string
	tls        *tls.Config
	credential secret.Login
	fleet      *fleet
	log        *slog.Logger
	gate       *semaphore.Weighted // one for each command in flight, all for a change of the credential

	moves   sync.Mutex // one at a time; guards stopped
	stopped bool
	mu      sync.Mutex // guards the fields below
	link    *link
	up      chan struct{} // closed while there is a connection
}

// link is one login at the broker.
type link struct {
	session *session
	manager *autopaho.ConnectionManager
}

func newPublisher(cfg Config, credential secret.Login, f *fleet, log *slog.Logger) (*publisher, error) {
	broker, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parsing the URL of the MQTT broker: %w", err)
	}
	return &publisher{
		broker: broker, clientID: cfg.ClientID, tls: cfg.TLS, credential: credential, fleet: f, log: log,
		gate: semaphore.NewWeighted(concurrency), up: make(chan struct{}),
	}, nil
}

// connect starts to connect and returns. It tries again until close.
func (p *publisher) connect(ctx context.Context) error {
	l := &link{session: newSession()}
	manager, err := autopaho.NewConnection(context.WithoutCancel(ctx), autopaho.ClientConfig{
		ServerUrls: []*url.URL{p.broker},
		KeepAlive:  keepAlive,
		ReconnectBackoff: func(attempt int) time.Duration {
			return min(time.Duration(attempt)*250*time.Millisecond, 2*time.Second)
		},
		ConnectTimeout:       dialTimeout,
		AttemptConnection:    p.dial,
		ConnectPacketBuilder: p.logIn,
		OnConnectionUp:       func(m *autopaho.ConnectionManager, _ *paho.Connack) { p.connected(ctx, m) },
		OnConnectionDown:     func() bool { p.disconnected(l); return true },
		OnConnectError:       p.failed,
		ClientConfig: paho.ClientConfig{
			ClientID: p.clientID, Session: l.session, PacketTimeout: maxPatience + 2*completion,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
				p.fleet.read(string(r.Packet.Payload), time.Now())
				return true, nil
			}},
		},
	})
	if err != nil {
		return fmt.Errorf("connecting to the MQTT broker for commands: %w", err)
	}
	l.manager = manager
	p.mu.Lock()
	p.link = l
	p.mu.Unlock()
	return nil
}

func (p *publisher) dial(ctx context.Context, _ autopaho.ClientConfig, broker *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return mqttconn.Dial(ctx, broker, p.tls)
}

// logIn completes a CONNECT with the current credential.
func (p *publisher) logIn(c *paho.Connect, _ *url.URL) (*paho.Connect, error) {
	user, password, err := p.credential.Get(context.Background())
	if err != nil {
		return nil, fmt.Errorf("no password for MQTT: %w", err)
	}
	c.CleanStart = true
	c.Properties = &paho.ConnectProperties{ReceiveMaximum: new(uint16(receiveMaximum))}
	c.UsernameFlag, c.Username = true, user
	c.PasswordFlag, c.Password = true, []byte(password)
	return c, nil
}

func (p *publisher) connected(ctx context.Context, m *autopaho.ConnectionManager) {
	p.mu.Lock()
	select {
	case <-p.up:
	default:
		close(p.up)
	}
	p.mu.Unlock()
	p.log.Info("mqtt connected for commands", "broker", p.broker.Host)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		_, err := m.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: logTopic}}})
		if err == nil {
			p.fleet.listens()
		} else if ctx.Err() == nil {
			p.log.Warn("cannot subscribe to the broker's log: whether controllers are connected is unknown", "topic", logTopic, "error", err)
		}
	}()
}

func (p *publisher) disconnected(l *link) {
	p.mu.Lock()
	if p.link == l || p.link == nil {
		p.up = make(chan struct{})
	}
	p.mu.Unlock()
	p.fleet.forget()
	p.log.Warn("mqtt connection for commands lost")
}

// failed handles a failed connection. If the broker refused the credential, it is looked
// up again.
func (p *publisher) failed(err error) {
	var refusal *autopaho.ConnackError
	if errors.As(err, &refusal) && (refusal.ReasonCode == packets.ConnackBadUsernameOrPassword || refusal.ReasonCode == packets.ConnackNotAuthorized) {
		p.credential.Refused()
	}
	p.log.Debug("connecting to mqtt for commands", "error", err)
}

// current returns the current login, or nil.
func (p *publisher) current() *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link
}

// ready reports whether there is a connection.
func (p *publisher) ready() bool {
	l := p.current()
	return l != nil && l.session.connected()
}

// await returns when there is a connection or ctx ends.
func (p *publisher) await(ctx context.Context) error {
	p.mu.Lock()
	up := p.up
	p.mu.Unlock()
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish publishes one message, which the broker may deliver until deadline. It returns
// the fate of the message: unsent may be tried again.
func (p *publisher) publish(ctx context.Context, name string, payload []byte, deadline time.Time) fate {
	if p.gate.Acquire(ctx, 1) != nil {
		return unsent
	}
	defer p.gate.Release(1)
	l := p.current()
	expiry, limit, ok := schedule(time.Now(), deadline)
	if l == nil || !ok {
		return unsent
	}
	a := &attempt{limit: limit}
	ctx, cancel := context.WithDeadline(context.WithValue(ctx, attemptKey{}, a), limit.Add(completion))
	defer cancel()
	giveUp := time.AfterFunc(time.Until(limit), func() {
		if a.end() == withdrawn {
			cancel()
		}
	})
	defer giveUp.Stop()
	_, err := l.manager.Publish(ctx, &paho.Publish{
		Topic: name, Payload: payload, QoS: 2,
		Properties: &paho.PublishProperties{MessageExpiry: &expiry},
	})
	f := a.end()
	if err != nil && f != unsent && ctx.Err() != nil {
		l.session.drop() // the broker does not respond
	}
	return f
}

// move logs in again with the current credential. It waits for commands in flight first,
// if the broker responds.
func (p *publisher) move(ctx context.Context) {
	p.moves.Lock()
	defer p.moves.Unlock()
	if p.stopped || ctx.Err() != nil {
		return
	}
	quiet, cancel := context.WithTimeout(ctx, quietTimeout)
	if p.gate.Acquire(quiet, concurrency) == nil {
		defer p.gate.Release(concurrency)
	}
	cancel()
	p.close()
	if err := p.connect(ctx); err != nil {
		p.log.Error("mqtt credential for commands not changed", "error", err)
		return
	}
	bounded, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	if p.await(bounded) != nil && ctx.Err() == nil {
		p.log.Warn("mqtt credential for commands changed, but the broker has not accepted it yet")
	}
}

// stop disconnects. There is no connection after it.
func (p *publisher) stop() {
	p.moves.Lock()
	defer p.moves.Unlock()
	p.stopped = true
	p.close()
}

// close disconnects.
func (p *publisher) close() {
	p.mu.Lock()
	l := p.link
	p.link, p.up = nil, make(chan struct{})
	p.mu.Unlock()
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), quietTimeout)
	defer cancel()
	_ = l.manager.Disconnect(ctx) // the outcome of commands still in flight is unknown
	p.fleet.forget()
}
