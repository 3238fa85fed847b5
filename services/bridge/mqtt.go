package bridge

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mqttconn"
)

// newClient makes the session's client. The broker keeps what is not
// acknowledged for the client id, whoever logs in under it. The handler is in
// place before it connects: the broker sends what it kept right after CONNACK,
// before any SUBSCRIBE.
func (b *Bridge) newClient(s *session) (mqtt.Client, error) {
	options := mqtt.NewClientOptions().
		AddBroker(b.cfg.URL).
		SetClientID(b.cfg.ClientID).
		SetProtocolVersion(4). // or a refused login is tried a second time, with MQTT 3.1
		SetCredentialsProvider(b.login).
		SetCleanSession(false).
		SetAutoAckDisabled(true).
		SetStore(noStore{}).
		SetOrderMatters(true).
		SetAutoReconnect(true).SetMaxReconnectInterval(2 * time.Second).
		SetConnectRetry(true).SetConnectRetryInterval(time.Second).
		SetConnectTimeout(10 * time.Second).
		SetKeepAlive(30 * time.Second).SetPingTimeout(20 * time.Second).
		SetDefaultPublishHandler(s.arrive).
		SetOnConnectHandler(s.subscribe).
		SetConnectionNotificationHandler(s.notice).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			b.metrics.connected.Set(0)
			b.log.Warn("mqtt connection lost", "error", err)
		}).
		SetReconnectingHandler(func(mqtt.Client, *mqtt.ClientOptions) { b.log.Info("connecting to mqtt", "broker", b.cfg.URL) })
	if b.cfg.CAFile != "" {
		config, err := tlsConfig(b.cfg.CAFile)
		if err != nil {
			return nil, err
		}
		options.SetTLSConfig(config)
	}
	options.SetCustomOpenConnectionFn(func(broker *url.URL, o mqtt.ClientOptions) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), o.ConnectTimeout)
		defer cancel()
		return mqttconn.Dial(ctx, broker, o.TLSConfig)
	})
	return mqtt.NewClient(options), nil
}

// login is the credential as it is now.
func (b *Bridge) login() (user, password string) {
	user, password, err := b.credential.Get(context.Background())
	if err != nil {
		b.log.Error("no password for MQTT", "error", err)
	}
	return user, password
}

// noStore keeps no packets over a reconnect, where paho would keep all that are
// unacknowledged. Nothing is lost by it: the broker delivers again what came in.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}

func tlsConfig(caFile string) (*tls.Config, error) {
	pool, err := identity.Pool(caFile)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
