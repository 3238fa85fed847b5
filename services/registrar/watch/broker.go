package watch

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mqttconn"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// logTopic is where Mosquitto publishes its log: errors, warnings and notices,
// never debugging, whatever its settings (`log_dest topic`, 2.0.11).
const logTopic = "$SYS/broker/log/#"

// droppedTopic is where Mosquitto tells how many messages it threw away since it
// started, every sys_interval: a queue was full.
const droppedTopic = "$SYS/broker/publish/messages/dropped"

// silentCount is after how long there is no count to be heard: Mosquitto tells it when it
// changes, at most every sys_interval of 10 s, and keeps it for who comes later only
// where retained messages are on.
const silentCount = 15 * time.Second

// disconnectWait is how many milliseconds a DISCONNECT may take to be sent.
const disconnectWait = 250

// broker is a client that reads the broker's log.
type broker struct {
	client     mqtt.Client
	credential secret.Login
	connected  prometheus.Gauge
	dropped    *dropped
	log        *slog.Logger
	listening  atomic.Bool

	mu     sync.Mutex // makes a change of login one step
	opened bool
}

func newBroker(cfg *Config, credential secret.Login, observe func(string), m *metrics, log *slog.Logger) (*broker, error) {
	b := &broker{credential: credential, connected: m.connected, dropped: &m.dropped, log: log}
	options := mqtt.NewClientOptions().
		AddBroker(cfg.MQTTURL).
		SetClientID("f2mesh-registrar-watch").
		SetProtocolVersion(4). // or a refused login is tried a second time, with MQTT 3.1
		SetCredentialsProvider(b.login).
		SetCleanSession(true).
		SetAutoReconnect(true).SetMaxReconnectInterval(2 * time.Second).
		SetConnectRetry(true).SetConnectRetryInterval(time.Second).
		SetConnectTimeout(10 * time.Second).
		SetKeepAlive(30 * time.Second).SetPingTimeout(20 * time.Second).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			if m.Topic() == droppedTopic {
				b.count(string(m.Payload()))
				return
			}
			observe(string(m.Payload()))
		}).
		SetOnConnectHandler(b.subscribe).
		SetConnectionNotificationHandler(b.notice).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			b.heard(false)
			log.Warn("mqtt connection lost, the broker's log is not watched", "error", err)
		})
	if cfg.MQTTCAFile != "" {
		pool, err := identity.CertPool(cfg.MQTTCAFile)
		if err != nil {
			return nil, err
		}
		options.SetTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
	}
	options.SetCustomOpenConnectionFn(func(uri *url.URL, o mqtt.ClientOptions) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), o.ConnectTimeout)
		defer cancel()
		return mqttconn.Dial(ctx, uri, o.TLSConfig)
	})
	b.client = mqtt.NewClient(options)
	return b, nil
}

func (b *broker) open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = true
	b.client.Connect() // goes on trying
	b.credential.Notify(b.move)
}

func (b *broker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = false
	b.client.Disconnect(disconnectWait)
}

// move logs in anew with the credential as it is now. What the broker logs in
// between is not seen.
func (b *broker) move() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.opened {
		return
	}
	b.heard(false)
	b.client.Disconnect(disconnectWait)
	if token := b.client.Connect(); !token.WaitTimeout(moveTimeout) || token.Error() != nil {
		b.log.Warn("mqtt credential changed, the broker does not let the registrar in yet")
	}
}

// moveTimeout bounds how long a change of the credential waits for the new login.
const moveTimeout = 5 * time.Second

// login is the credential as it is now.
func (b *broker) login() (user, password string) {
	user, password, err := b.credential.Get(context.Background())
	if err != nil {
		b.log.Error("no password for MQTT", "error", err)
	}
	return user, password
}

// notice tells the credential when the broker refuses it.
func (b *broker) notice(_ mqtt.Client, n mqtt.ConnectionNotification) {
	if failed, ok := n.(mqtt.ConnectionNotificationFailed); ok &&
		(errors.Is(failed.Reason, packets.ErrorRefusedNotAuthorised) || errors.Is(failed.Reason, packets.ErrorRefusedBadUsernameOrPassword)) {
		b.credential.Refused()
	}
}

func (b *broker) subscribe(client mqtt.Client) {
	token := client.SubscribeMultiple(map[string]byte{logTopic: 0, droppedTopic: 0}, nil)
	go func() {
		token.Wait()
		err := token.Error()
		if sub, ok := token.(*mqtt.SubscribeToken); ok && err == nil && sub.Result()[logTopic] == 0x80 {
			err = errors.New("the broker refuses its log: check the ACL of this user")
		}
		switch {
		case !client.IsConnectionOpen(): // lost meanwhile: the next one subscribes
			return
		case err != nil:
			b.log.Error("subscribing to the broker's log", "error", err)
			return
		}
		b.heard(true)
		time.AfterFunc(silentCount, b.dropped.assume)
	}()
}

// count takes what the broker says of dropped messages.
func (b *broker) count(text string) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		b.dropped.set(n)
	}
}

func (b *broker) heard(now bool) {
	b.listening.Store(now)
	value := 0.0
	if now {
		value = 1
	}
	b.connected.Set(value)
}

func (b *broker) ready() error {
	if !b.listening.Load() || !b.client.IsConnectionOpen() {
		return errors.New("the broker's log is not heard: is the broker there, and the password of user registrar right?")
	}
	return nil
}
