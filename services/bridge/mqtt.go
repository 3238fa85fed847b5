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

const (
	// reconnectPause is between two attempts to connect. Controllers come back as soon as
	// the broker does, and what it acknowledges before the bridge is back is lost if it is
	// killed before its next save (design 5.10).
	reconnectPause = 50 * time.Millisecond
	// refusedPause is before the next attempt with a login that the broker has refused.
	refusedPause = time.Second
)

// newClient returns the session's client. The broker keeps unacknowledged messages for the
// client id, whichever user logs in with it. The handler must be set before the client
// connects: the broker sends kept messages right after CONNACK, before any SUBSCRIBE.
func (b *Bridge) newClient(s *session) (mqtt.Client, error) {
	config, err := tlsConfig(b.cfg.CAFile)
	if err != nil {
		return nil, err
	}
	options := mqtt.NewClientOptions().
		AddBroker(b.cfg.URL).
		SetClientID(b.cfg.ClientID).
		SetProtocolVersion(4). // otherwise a refused login is tried again with MQTT 3.1
		SetCredentialsProvider(b.login).
		SetCleanSession(false).
		SetAutoAckDisabled(true).
		SetStore(noStore{}).
		SetOrderMatters(true).
		SetAutoReconnect(true).SetMaxReconnectInterval(reconnectPause).
		SetConnectRetry(true).SetConnectRetryInterval(reconnectPause).
		SetConnectTimeout(10 * time.Second).
		SetKeepAlive(30 * time.Second).SetPingTimeout(20 * time.Second).
		SetDefaultPublishHandler(s.arrive).
		SetOnConnectHandler(s.subscribe).
		SetConnectionNotificationHandler(s.notice).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			b.metrics.connected.Set(0)
			b.log.Warn("mqtt connection lost", "error", err)
		}).
		SetReconnectingHandler(s.reconnecting)
	if config != nil {
		options.SetTLSConfig(config)
	}
	options.SetCustomOpenConnectionFn(func(broker *url.URL, o mqtt.ClientOptions) (net.Conn, error) {
		if s.refused.Load() {
			time.Sleep(refusedPause)
		}
		ctx, cancel := context.WithTimeout(context.Background(), o.ConnectTimeout)
		defer cancel()
		return mqttconn.Dial(ctx, broker, o.TLSConfig)
	})
	return mqtt.NewClient(options), nil
}

// login returns the current credential.
func (b *Bridge) login() (user, password string) {
	user, password, err := b.credential.Get(context.Background())
	if err != nil {
		b.log.Error("no password for MQTT", "error", err)
	}
	return user, password
}

// noStore keeps no packets over a reconnect; paho would keep all unacknowledged ones.
// Nothing is lost: the broker delivers them again.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}

// tlsConfig returns nil if there is no CA file: the connection is without TLS.
func tlsConfig(caFile string) (*tls.Config, error) {
	if caFile == "" {
		return nil, nil //nolint:nilnil // without TLS
	}
	pool, err := identity.CertPool(caFile)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
