package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsservertest.Leftovers()...) }

const (
	password = "for this test only"
	mac      = topic.MAC("e4fd45f654be")
	strike   = "f2.command.e4fd45f654be.access-control-mode.3.strike-1"
	siren    = "f2.command.e4fd45f654be.alarm-mode.4.siren-1"
	open     = `{"power-flag":1,"period":5}`
	patience = 30 * time.Second
)

// bench is a real broker and a real NATS server.
type bench struct {
	t       *testing.T
	cfg     mosquitto.Config
	broker  *mosquitto.Broker
	ca      string
	devices string
	streams *stream.Client
	results chan outcome.Result // all, in order
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := accounttest.TempDir(t)
	authority, err := identity.OpenAuthority(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	b := &bench{t: t, ca: authority.CAFile(), devices: filepath.Join(dir, "devices"), streams: streamtest.NewClient(t), results: make(chan outcome.Result, 1000)}
	cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(cert, key, []string{"127.0.0.1"}))
	_, err = authority.IssueDevice(b.devices, mac, "SN-1")
	require.NoError(t, err)
	b.cfg = mosquitto.Config{
		Dir: filepath.Join(dir, "mosquitto"), CAFile: b.ca, CertFile: cert, KeyFile: key,
		Users: map[string]string{"bridge": password, "bridge_b": password, "operator": password}, Log: slog.New(slog.DiscardHandler),
	}
	require.NoError(t, mosquitto.WriteDeviceACL(b.cfg.Dir, []topic.MAC{mac}))
	b.startBroker()
	b.cfg.Port, b.cfg.TLSPort, b.cfg.WebSocketPort = b.broker.Port(), b.broker.TLSPort(), b.broker.WebSocketPort()
	t.Cleanup(func() { _ = b.broker.Kill() })
	require.NoError(t, b.streams.Ensure(t.Context(), stream.Commands, stream.Result, stream.Raw))
	sub, err := b.streams.JetStream().Conn().Subscribe("f2.result.>", func(m *nats.Msg) {
		if r, err := outcome.Parse(m.Header, m.Data); err == nil && r.Outcome != outcome.Sent {
			b.results <- r
		}
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return b
}

func (b *bench) startBroker() {
	b.t.Helper()
	var err error
	b.broker, err = mosquitto.Start(context.WithoutCancel(b.t.Context()), b.cfg)
	if errors.Is(err, mosquitto.ErrNotInstalled) {
		accounttest.SkipMissing(b.t, err)
	}
	require.NoError(b.t, err)
}

// commands are a bridge's Commands and a client that passes messages to Heard.
type commands struct {
	*Commands
	credential *secrettest.FixedSource
	stop       func()
}

// run runs commands until stop or the test's end.
func (b *bench) run(maxAge time.Duration) *commands {
	b.t.Helper()
	cfg := Config{URL: "tcp://" + b.broker.Address(), ClientID: "f2mesh-bridge-commands", Consumer: "bridge", MaxAge: maxAge, DrainTimeout: 5 * time.Second}
	credential, source := secrettest.Changing(b.t, "bridge", password, 20*time.Millisecond)
	c, err := New(cfg, credential, b.streams, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	// The bridge's other connection hears the controllers.
	ears := b.client("ears", nil)
	b.subscribe(ears, "#", func(m mqtt.Message) {
		if t, err := topic.Parse(m.Topic()); err == nil {
			c.Heard(t, m.Topic(), m.Payload(), time.Now())
		}
	})
	require.Eventually(b.t, func() bool {
		c.fleet.mu.Lock()
		defer c.fleet.mu.Unlock()
		return c.Ready() == nil && c.fleet.listen
	}, patience, time.Millisecond)
	var once sync.Once
	stop := func() {
		once.Do(func() {
			ears.Disconnect(100)
			cancel()
			require.NoError(b.t, <-done)
		})
	}
	b.t.Cleanup(stop)
	return &commands{Commands: c, credential: source, stop: stop}
}

// client connects as a service, or as the controller with its certificate.
func (b *bench) client(id string, change func(*mqtt.ClientOptions)) mqtt.Client {
	b.t.Helper()
	options := mqtt.NewClientOptions().AddBroker("tcp://" + b.broker.Address()).SetClientID(id).
		SetUsername("bridge").SetPassword(password).SetConnectRetry(true).SetConnectRetryInterval(100 * time.Millisecond).SetMaxReconnectInterval(500 * time.Millisecond)
	if change != nil {
		change(options)
	}
	client := mqtt.NewClient(options)
	token := client.Connect()
	require.True(b.t, token.WaitTimeout(patience))
	require.NoError(b.t, token.Error())
	b.t.Cleanup(func() { client.Disconnect(0) })
	return client
}

func (b *bench) subscribe(client mqtt.Client, filter string, handle func(mqtt.Message)) {
	b.t.Helper()
	token := client.Subscribe(filter, 1, func(_ mqtt.Client, m mqtt.Message) { handle(m) })
	require.True(b.t, token.WaitTimeout(patience))
	require.NoError(b.t, token.Error())
}

// device is the controller that the broker knows. It confirms every command.
type device struct {
	mqtt.Client
	mu    sync.Mutex
	heard []string
}

func (b *bench) controller(persistent bool) *device {
	b.t.Helper()
	c := &device{}
	pem, err := os.ReadFile(b.ca)
	require.NoError(b.t, err)
	roots := x509.NewCertPool()
	require.True(b.t, roots.AppendCertsFromPEM(pem))
	folder := filepath.Join(b.devices, mac.Dashed())
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "device.crt"), filepath.Join(folder, "device.key"))
	require.NoError(b.t, err)
	handle := func(client mqtt.Client, m mqtt.Message) {
		c.mu.Lock()
		c.heard = append(c.heard, m.Topic()+" "+string(m.Payload()))
		c.mu.Unlock()
		client.Publish("stat"+m.Topic()[len("cmnd"):], 1, false, `{"status": true}`)
	}
	c.Client = b.client(mac.Dashed(), func(o *mqtt.ClientOptions) {
		o.Servers = nil
		o.AddBroker("ssl://" + b.broker.TLSAddress()).SetCleanSession(!persistent).SetAutoReconnect(true).
			SetTLSConfig(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}).
			SetDefaultPublishHandler(handle)
	})
	b.subscribe(c.Client, "cmnd/f2-"+string(mac)+"/#", func(m mqtt.Message) { handle(c.Client, m) })
	return c
}

func (c *device) carriedOut() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.heard...)
}

// header is a header of a command.
type header [2]string

// waits is on a command that may wait for its controller.
var waits = header{outcome.HeaderWait, "true"}

// send publishes a command as its sender does.
func (b *bench) send(subject, id, body string, headers ...header) *jetstream.PubAck {
	b.t.Helper()
	m := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{}}
	if id != "" {
		m.Header.Set(nats.MsgIdHdr, id)
	}
	for _, h := range headers {
		m.Header.Set(h[0], h[1])
	}
	ack, err := b.streams.JetStream().PublishMsg(b.t.Context(), m)
	require.NoError(b.t, err)
	return ack
}

// reported stores a report of the strike on RAW, as old as given.
func (b *bench) reported(body string, age time.Duration, headers ...header) {
	b.t.Helper()
	m := &nats.Msg{Subject: "f2.raw.stat.e4fd45f654be.access-control-mode.3.strike-1", Data: []byte(body), Header: nats.Header{
		event.HeaderReceived: {time.Now().Add(-age).UTC().Format(time.RFC3339Nano)},
	}}
	for _, h := range headers {
		m.Header[h[0]] = []string{h[1]}
	}
	_, err := b.streams.JetStream().PublishMsg(b.t.Context(), m)
	require.NoError(b.t, err)
}

// result is the next outcome.
func (b *bench) result() outcome.Result {
	b.t.Helper()
	select {
	case r := <-b.results:
		return r
	case <-time.After(patience):
		require.Fail(b.t, "no result")
		return outcome.Result{}
	}
}

// present waits until the commands know that the controller is there, or not.
func (b *bench) known(c *commands, p presence) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		c.fleet.mu.Lock()
		defer c.fleet.mu.Unlock()
		return c.fleet.of(mac).presence == p
	}, patience, time.Millisecond, fmt.Sprint(p))
}
