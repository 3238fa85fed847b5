package watch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/mqttconn"
)

// logTopic is where Mosquitto publishes its log: errors, warnings and notices,
// never debugging, whatever its settings (`log_dest topic`, 2.0.11).
const logTopic = "$SYS/broker/log/#"

// broker is a client that reads the broker's log.
type broker struct {
	client    mqtt.Client
	observe   func(line string)
	connected prometheus.Gauge
	log       *slog.Logger
	listening atomic.Bool
}

func newBroker(cfg *Config, credentials func() (string, string), observe func(string), connected prometheus.Gauge, log *slog.Logger) (*broker, error) {
	b := &broker{observe: observe, connected: connected, log: log}
	options := mqtt.NewClientOptions().
		AddBroker(cfg.MQTTURL).
		SetClientID("f2mesh-registrar-watch").
		SetCredentialsProvider(credentials).
		SetCleanSession(true).
		SetAutoReconnect(true).SetMaxReconnectInterval(2 * time.Second).
		SetConnectRetry(true).SetConnectRetryInterval(time.Second).
		SetConnectTimeout(10 * time.Second).
		SetKeepAlive(30 * time.Second).SetPingTimeout(20 * time.Second).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { observe(string(m.Payload())) }).
		SetOnConnectHandler(b.subscribe).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			b.heard(false)
			log.Warn("mqtt connection lost, the broker's log is not watched", "error", err)
		})
	if cfg.MQTTCAFile != "" {
		text, err := os.ReadFile(cfg.MQTTCAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the broker's CA: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no PEM certificate", cfg.MQTTCAFile)
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

func (b *broker) open()  { b.client.Connect() } // goes on trying
func (b *broker) close() { b.client.Disconnect(250) }

func (b *broker) subscribe(client mqtt.Client) {
	token := client.Subscribe(logTopic, 0, nil)
	go func() {
		token.Wait()
		err := token.Error()
		if sub, ok := token.(*mqtt.SubscribeToken); ok && err == nil && sub.Result()[logTopic] == 0x80 {
			err = errors.New("the broker refuses its log: check the ACL of this user")
		}
		if err != nil {
			b.log.Error("subscribing to the broker's log", "error", err)
			return
		}
		b.heard(true)
	}()
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
