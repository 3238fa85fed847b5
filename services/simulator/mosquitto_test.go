package simulator

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mesh is a real Mosquitto and a fleet that it accepts.
type mesh struct {
	broker      *mosquitto.Broker
	config      mosquitto.Config
	controllers []fleet.Controller
	devices     string
	ca          string
}

const password = "for this test only"

// startMesh starts a broker for n controllers. Without Mosquitto the test is
// skipped on a laptop and fails in CI.
func startMesh(t testing.TB, n int) *mesh { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	dir := accounttest.TempDir(t)
	authority, err := identity.OpenAuthority(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	m := &mesh{controllers: fleet.Demo(n), devices: filepath.Join(dir, "devices"), ca: authority.CAFile()}
	cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(cert, key, []string{"127.0.0.1", "localhost"}))
	var macs []topic.MAC
	for i := range m.controllers {
		c := &m.controllers[i]
		_, err := authority.IssueDevice(m.devices, c.MAC, c.SerialNumber)
		require.NoError(t, err)
		macs = append(macs, c.MAC)
	}
	m.config = mosquitto.Config{
		Dir: filepath.Join(dir, "mosquitto"), CAFile: m.ca, CertFile: cert, KeyFile: key,
		Users: map[string]string{"bridge": password, "operator": password},
		Log:   slog.New(slog.DiscardHandler),
	}
	require.NoError(t, mosquitto.WriteDeviceACL(m.config.Dir, macs))
	m.start(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = m.broker.Stop(ctx)
	})
	m.config.Port, m.config.TLSPort, m.config.WebSocketPort = m.broker.Port(), m.broker.TLSPort(), m.broker.WebSocketPort()
	return m
}

// start starts or restarts the broker.
func (m *mesh) start(t testing.TB) { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	var err error
	m.broker, err = mosquitto.Start(context.WithoutCancel(t.Context()), m.config)
	if errors.Is(err, mosquitto.ErrNotInstalled) {
		accounttest.SkipMissing(t, err)
	}
	require.NoError(t, err)
}

// simulator returns a simulator of the mesh's fleet.
func (m *mesh) simulator(cfg Config) *Simulator {
	cfg.Broker = (&url.URL{Scheme: "ssl", Host: m.broker.TLSAddress()}).String()
	cfg.CAFile, cfg.Devices = m.ca, m.devices
	return New(cfg, m.controllers, slog.New(slog.DiscardHandler))
}

// inbox counts messages by topic and payload.
type inbox struct {
	mu   sync.Mutex
	seen map[string]int
}

func newInbox() *inbox { return &inbox{seen: map[string]int{}} }

func (i *inbox) add(name string, body []byte) {
	i.mu.Lock()
	i.seen[name+"\n"+string(body)]++
	i.mu.Unlock()
}

func (i *inbox) len() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.seen)
}

// missing returns how many messages of i are not in other.
func (i *inbox) missing(other *inbox) (n int) {
	i.mu.Lock()
	other.mu.Lock()
	defer i.mu.Unlock()
	defer other.mu.Unlock()
	for key := range i.seen {
		if other.seen[key] == 0 {
			n++
		}
	}
	return n
}

// subscribe subscribes like the bridge, with a persistent session.
func (m *mesh) subscribe(t testing.TB, into *inbox) mqtt.Client { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	options := mqtt.NewClientOptions().AddBroker("tcp://" + m.broker.Address()).
		SetClientID("test").SetUsername("bridge").SetPassword(password).
		SetCleanSession(false).SetAutoReconnect(true).SetMaxReconnectInterval(time.Second).
		SetResumeSubs(true).SetOrderMatters(true).
		SetDefaultPublishHandler(func(_ mqtt.Client, p mqtt.Message) { into.add(p.Topic(), p.Payload()) })
	client := mqtt.NewClient(options)
	token := client.Connect()
	require.True(t, token.WaitTimeout(10*time.Second))
	require.NoError(t, token.Error())
	token = client.Subscribe("#", 1, nil)
	require.True(t, token.WaitTimeout(10*time.Second))
	require.NoError(t, token.Error())
	t.Cleanup(func() { client.Disconnect(500) })
	return client
}
