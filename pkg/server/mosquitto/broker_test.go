package mosquitto

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
)

const (
	device   topic.MAC = "e4fd45f654be"
	neighbor topic.MAC = "e4fd45f654bf"
	patience           = 10 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a broker with an authority of its own.
type bench struct {
	t         *testing.T
	cfg       Config
	authority *identity.Authority
	devices   string
	broker    *Broker
}

// ownInterval is Mosquitto's own: tests that kill a broker know when it has saved.
var ownInterval = Autosave{Every: 10 * time.Second}

func newBench(t *testing.T) *bench {
	t.Helper()
	if _, err := find(); err != nil {
		accounttest.SkipMissing(t, err)
	}
	dir := accounttest.TempDir(t)
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	require.NoError(t, err)
	certificate, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(certificate, key, []string{"127.0.0.1", "localhost"}))
	return &bench{t: t, authority: authority, devices: filepath.Join(dir, "devices"), cfg: Config{
		Dir: filepath.Join(dir, "mosquitto"), CAFile: authority.CAFile(), CertFile: certificate, KeyFile: key,
		Users:    map[string]string{"bridge": "bridge password", "registrar": "registrar password", "operator": "operator password", "nobody": "nobody password"},
		Autosave: ownInterval,
		Log:      slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
}

// start starts the broker; later on, again on the same folder and ports.
func (b *bench) start() *bench {
	b.t.Helper()
	broker, err := Start(b.t.Context(), b.cfg)
	require.NoError(b.t, err)
	b.broker = broker
	b.cfg.Port, b.cfg.TLSPort, b.cfg.PeoplePort, b.cfg.WebSocketPort = broker.Port(), broker.TLSPort(), broker.PeoplePort(), broker.WebSocketPort()
	b.t.Cleanup(func() { assert.NoError(b.t, broker.Kill()) })
	return b
}

// writeDevices replaces the list of controllers of a broker without a Gate.
func (b *bench) writeDevices(macs ...topic.MAC) {
	b.t.Helper()
	b.writeACL(deviceACL(macs, twoSpellings))
}

// setDevices does so while the broker runs.
func (b *bench) setDevices(macs []topic.MAC) {
	b.t.Helper()
	b.writeDevices(macs...)
	require.NoError(b.t, Reload(b.cfg.Dir))
}

func (b *bench) stop() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	require.NoError(b.t, b.broker.Stop(ctx))
}

func (b *bench) options(url string) *mqtt.ClientOptions {
	return mqtt.NewClientOptions().AddBroker(url).SetConnectTimeout(patience).
		SetAutoReconnect(false).SetConnectRetry(false).SetTLSConfig(b.tls())
}

// tls trusts our CA and has no certificate of its own.
func (b *bench) tls() *tls.Config {
	b.t.Helper()
	pool := x509.NewCertPool()
	text, err := os.ReadFile(b.authority.CAFile())
	require.NoError(b.t, err)
	require.True(b.t, pool.AppendCertsFromPEM(text))
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func (b *bench) certificate(authority *identity.Authority, folder string, mac topic.MAC) tls.Certificate {
	b.t.Helper()
	_, err := authority.IssueDevice(folder, mac, "SN-1")
	require.NoError(b.t, err)
	own := filepath.Join(folder, mac.Dashed())
	pair, err := tls.LoadX509KeyPair(filepath.Join(own, "device.crt"), filepath.Join(own, "device.key"))
	require.NoError(b.t, err)
	return pair
}

// userOptions are those of a user where it belongs: a service's or a person's.
func (b *bench) userOptions(user string) *mqtt.ClientOptions {
	address := b.broker.Address()
	if !isService(user) {
		address = b.broker.PeopleAddress()
	}
	return b.options("tcp://" + address).SetUsername(user).SetPassword(b.cfg.Users[user])
}

func (b *bench) deviceOptions(mac topic.MAC) *mqtt.ClientOptions {
	config := b.tls()
	config.Certificates = []tls.Certificate{b.certificate(b.authority, b.devices, mac)}
	return b.options("ssl://" + b.broker.TLSAddress()).SetTLSConfig(config)
}

func connectMQTT(t *testing.T, options *mqtt.ClientOptions) mqtt.Client {
	t.Helper()
	client := mqtt.NewClient(options)
	wait(t, client.Connect())
	t.Cleanup(func() { client.Disconnect(0) })
	return client
}

func wait(t *testing.T, token mqtt.Token) {
	t.Helper()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
}

// refused reports whether the broker did not let the client in.
func refused(options *mqtt.ClientOptions) bool {
	client := mqtt.NewClient(options)
	defer client.Disconnect(0)
	token := client.Connect()
	return token.WaitTimeout(patience) && token.Error() != nil
}

// listen subscribes and returns the topics and payloads that arrive.
func listen(t *testing.T, options *mqtt.ClientOptions, filters ...string) (mqtt.Client, <-chan string) {
	t.Helper()
	arrived := make(chan string, 1000)
	client := connectMQTT(t, options.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		arrived <- m.Topic() + "=" + string(m.Payload())
	}))
	for _, filter := range filters {
		wait(t, client.Subscribe(filter, 1, nil))
	}
	return client, arrived
}

// until collects what arrives up to and with last.
func until(t *testing.T, arrived <-chan string, last string) []string {
	t.Helper()
	var all []string
	for {
		select {
		case message := <-arrived:
			if all = append(all, message); message == last {
				return all
			}
		case <-time.After(patience):
			require.FailNow(t, "nothing more arrives", "after %q, waiting for %q", all, last)
		}
	}
}
