package watch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// registry is a fleet in memory.
type registry struct {
	mu       sync.Mutex
	active   []topic.MAC
	expiring []registrar.Device
	guessed  map[string]string
}

func (r *registry) Active(_ context.Context, macs []topic.MAC) (active []topic.MAC, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, mac := range macs {
		if slices.Contains(r.active, mac) {
			active = append(active, mac)
		}
	}
	return active, nil
}

func (r *registry) Guessed(context.Context) (map[string]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.guessed, nil
}

func (r *registry) Expiring(_ context.Context, before time.Time) (all []registrar.Device, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.expiring {
		if d.NotAfter.Before(before) {
			all = append(all, d)
		}
	}
	return all, nil
}

// bus is a NATS server with what the registrar may do there, and the operator.
type bus struct {
	own, operator jetstream.JetStream
	alarms        <-chan alarm.Alarm
}

func newBus(t *testing.T) *bus {
	t.Helper()
	cfg := natsservertest.Config(t)
	server := natsservertest.Start(t, cfg)
	connect := func(user string) jetstream.JetStream {
		nc, err := nats.Connect(server.URL(), nats.UserInfo(user, natsservertest.Password(user)), nats.RootCAs(cfg.CAFile),
			nats.CustomInboxPrefix(natsserver.InboxPrefix(user)))
		require.NoError(t, err)
		t.Cleanup(func() { natsservertest.Close(nc) })
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		return js
	}
	b := &bus{own: connect(natsserver.Registrar), operator: connect(natsserver.Operator)}
	alarms := make(chan alarm.Alarm, 1000)
	_, err := b.operator.Conn().Subscribe("f2.alarm.registrar.>", func(m *nats.Msg) {
		var a alarm.Alarm
		require.NoError(t, json.Unmarshal(m.Data, &a))
		assert.Equal(t, "f2.alarm.registrar."+a.Kind, m.Subject)
		alarms <- a
	})
	require.NoError(t, err)
	require.NoError(t, b.operator.Conn().Flush())
	b.alarms = alarms
	return b
}

// next waits for an alarm of the kind, and answers it.
func (b *bus) next(t *testing.T, kind string) alarm.Alarm {
	t.Helper()
	for {
		select {
		case a := <-b.alarms:
			if a.Kind == kind {
				return a
			}
		case <-time.After(patience):
			require.FailNow(t, "no alarm "+kind)
		}
	}
}

func (b *bus) none(t *testing.T) {
	t.Helper()
	select {
	case a := <-b.alarms:
		require.Fail(t, "an alarm", a)
	default:
	}
}

// place is a broker with an authority of its own.
type place struct {
	broker    *mosquitto.Broker
	authority *identity.Authority
	dir       string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{dir: accounttest.TempDir(t)}
	var err error
	p.authority, err = identity.OpenAuthority(filepath.Join(p.dir, "certs"))
	require.NoError(t, err)
	certificate, key := filepath.Join(p.dir, "server.crt"), filepath.Join(p.dir, "server.key")
	require.NoError(t, p.authority.IssueServer(certificate, key, []string{"127.0.0.1"}))
	require.NoError(t, mosquitto.WriteDeviceACL(filepath.Join(p.dir, "mosquitto"), []topic.MAC{device}))
	p.broker, err = mosquitto.Start(t.Context(), mosquitto.Config{
		Dir: filepath.Join(p.dir, "mosquitto"), CAFile: p.authority.CAFile(), CertFile: certificate, KeyFile: key,
		Users: map[string]string{"registrar": "registrar password", "bridge": "bridge password"},
		Log:   slog.New(slog.DiscardHandler),
	})
	if errors.Is(err, mosquitto.ErrNotInstalled) {
		accounttest.SkipMissing(t, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.broker.Kill()) })
	_, err = p.authority.IssueDevice(filepath.Join(p.dir, "devices"), device, "SN-1")
	require.NoError(t, err)
	return p
}

// connect is a machine with the device's certificate.
func (p *place) connect(t *testing.T) mqtt.Client {
	t.Helper()
	folder := filepath.Join(p.dir, "devices", topic.MAC(device).Dashed())
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "device.crt"), filepath.Join(folder, "device.key"))
	require.NoError(t, err)
	text, err := os.ReadFile(p.authority.CAFile())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + p.broker.TLSAddress()).SetAutoReconnect(false).
		SetTLSConfig(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}))
	token := client.Connect()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
	t.Cleanup(func() { client.Disconnect(0) })
	return client
}

func (p *place) refused(user, password string) error {
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + p.broker.Address()).SetUsername(user).SetPassword(password).
		SetProtocolVersion(4).SetAutoReconnect(false)) // else paho tries again with the version before
	defer client.Disconnect(0)
	token := client.Connect()
	token.WaitTimeout(patience)
	return token.Error()
}

// held are secrets in memory.
type held struct {
	mu     sync.Mutex
	values map[string]secret.Value
}

func (h *held) Lookup(_ context.Context, name string) (secret.Value, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.values[name]
	if !ok {
		return v, secret.ErrNotFound
	}
	return v, nil
}

func (h *held) set(user, password, version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.values = map[string]secret.Value{"mqtt_registrar_password": secret.NewValue(password, "memory", version).WithUsername(user)}
}

func credential(t *testing.T, from secret.Source) secret.Login {
	t.Helper()
	store := secret.NewStore(secret.Chain{from}, slog.New(slog.DiscardHandler))
	store.Poll = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return secret.Login{Store: store, Password: "mqtt_registrar_password", User: "registrar"}
}

func start(t *testing.T, cfg Config, fleet Fleet, b *bus, secrets *held) *Watcher {
	t.Helper()
	w, err := New(cfg, fleet, func() ([]*x509.Certificate, error) { return nil, nil },
		credential(t, secrets),
		b.own, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return w
}

// What the real broker says, over MQTT, as the user that reads its log alone.
func TestBrokerLog(t *testing.T) {
	t.Parallel()
	b, p := newBus(t), newPlace(t)
	cfg := testConfig()
	cfg.MQTTURL = "tcp://" + p.broker.Address()
	secrets := &held{}
	secrets.set("registrar", "registrar password", "1")
	w := start(t, cfg, &registry{}, b, secrets)
	require.Eventually(t, func() bool { return w.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)

	first := p.connect(t)
	present := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.sessions.present[device].IsZero()
	}
	require.Eventually(t, present, patience, 10*time.Millisecond)
	first.Disconnect(250)
	require.Eventually(t, func() bool { return !present() }, patience, 10*time.Millisecond)
	p.connect(t)
	p.connect(t)
	p.connect(t)
	b.none(t)
	p.connect(t) // the third to end another
	a := b.next(t, Clone)
	assert.Equal(t, device, a.Subject)
	assert.True(t, a.Raised)
	assert.Contains(t, a.Detail, "127.0.0.1 (3)")

	for range cfg.FailedLogins / 2 {
		require.Error(t, p.refused("bridge", "guess, a secret"))
		conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", p.broker.TLSAddress())
		if err == nil { // without a certificate
			_ = conn.Close()
		}
		require.Error(t, err)
	}
	a = b.next(t, FailedLogins)
	assert.Contains(t, a.Detail, "password (2)")
	assert.Contains(t, a.Detail, "peer did not return a certificate (2)")
	assert.NotContains(t, a.Detail, "guess")
	require.NoError(t, p.refused("bridge", "bridge password"), "the control")

	// A rotation: another user, which the broker knows now.
	require.NoError(t, mosquitto.SetPassword(filepath.Join(p.dir, "mosquitto"), "registrar_b", "next"))
	require.Eventually(t, func() bool { return p.refused("registrar_b", "next") == nil }, patience, 10*time.Millisecond)
	secrets.set("registrar_b", "next", "2")
	require.Eventually(t, func() bool {
		user, _, err := w.broker.credential.Get(t.Context())
		return err == nil && user == "registrar_b" && w.Ready(t.Context()) == nil
	}, patience, 10*time.Millisecond)
	require.NoError(t, mosquitto.SetPassword(filepath.Join(p.dir, "mosquitto"), "registrar", ""))
	require.Eventually(t, func() bool { return p.refused("registrar", "registrar password") != nil }, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool { return w.Ready(t.Context()) == nil }, patience, 10*time.Millisecond, "it is in as the other")
}

// The log has no payload, however a device publishes, and the user that reads it
// reads nothing else.
func TestLogHasNoPayload(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	const payload = "canary payload"
	var mu sync.Mutex
	var heard strings.Builder
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + p.broker.Address()).SetUsername("registrar").SetPassword("registrar password").
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			mu.Lock()
			defer mu.Unlock()
			heard.WriteString(m.Topic() + " " + string(m.Payload()) + "\n")
		}))
	require.NoError(t, await(client.Connect()))
	defer client.Disconnect(0)
	require.NoError(t, await(client.Subscribe("#", 1, nil)))
	require.NoError(t, await(client.Subscribe("$SYS/#", 1, nil)))

	d := p.connect(t)
	for _, name := range []string{"tele/f2-" + device + "/x", "tele/f2-000000000000/x", "cmnd/x", strings.Repeat("x", 1000)} {
		for qos := range byte(3) {
			require.NoError(t, await(d.Publish(name, qos, false, payload)))
		}
	}
	d.Disconnect(250)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return regexp.MustCompile(`Client e4-fd-45-f6-54-be (\[[^]]*\] )?disconnected\.`).MatchString(heard.String())
	}, patience, 10*time.Millisecond, "the control: the log is heard")
	mu.Lock()
	defer mu.Unlock()
	assert.NotContains(t, heard.String(), payload)
}

func await(token mqtt.Token) error {
	if !token.WaitTimeout(patience) {
		return errors.New("no answer")
	}
	return token.Error()
}

func TestSilence(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	b.latest(t)
	const revoked, chatty topic.MAC = "e4fd45f654bf", "e4fd45f654c0"
	fleet := &registry{active: []topic.MAC{device, chatty}}
	publish := func(mac topic.MAC) { b.store(t, mac, nil) }
	a := newAlarms(func(one alarm.Alarm) error { return alarm.Publish(b.own.Conn(), one) }, newMetrics(prometheus.NewRegistry()).alarms, slog.New(slog.DiscardHandler))
	cfg := testConfig()
	s := newSilence(b.own, fleet, &cfg)
	look := func(after time.Duration) {
		require.NoError(t, s.look(t.Context(), time.Now().Add(after), nil, a))
	}
	look(0)
	for _, mac := range []topic.MAC{device, revoked, chatty} {
		publish(mac)
	}
	heard := func(n int) {
		require.Eventually(t, func() bool { look(0); return len(s.seen) == n }, patience, 10*time.Millisecond)
	}
	heard(3)
	b.none(t)

	// An hour later only one has been heard again.
	s.seen[device], s.seen[revoked] = time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)
	require.NoError(t, s.judge(t.Context(), time.Now(), a))
	told := b.next(t, Silent)
	assert.Equal(t, device, told.Subject)
	assert.True(t, told.Raised)
	require.NoError(t, s.judge(t.Context(), time.Now(), a))
	b.none(t)

	publish(device)
	require.Eventually(t, func() bool { look(0); return time.Since(s.seen[device]) < time.Minute }, patience, 10*time.Millisecond)
	told = b.next(t, Silent)
	assert.Equal(t, device, told.Subject)
	assert.False(t, told.Raised)

	look(time.Hour)
	assert.Equal(t, "fleet", b.next(t, Silent).Subject, "not an alarm a device when it is the pipeline")
	look(0)
	assert.False(t, b.next(t, Silent).Raised)
	b.none(t)

	// Another process begins with everything, and then reads what is new alone.
	s = newSilence(b.own, fleet, &cfg)
	look(0)
	assert.Len(t, s.seen, 3)
	s.seen = map[topic.MAC]time.Time{}
	publish(device)
	heard(1)
}

// latest makes a LATEST that the operator fills, and the registrar's place in it.
func (b *bus) latest(t *testing.T) {
	t.Helper()
	text, err := natsfiles.Files.ReadFile("stream_latest.json")
	require.NoError(t, err)
	var cfg jetstream.StreamConfig
	require.NoError(t, json.Unmarshal(text, &cfg))
	_, err = b.operator.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	var own jetstream.ConsumerConfig
	text, err = natsfiles.Files.ReadFile("consumer_latest_registrar.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &own))
	_, err = b.operator.CreateConsumer(t.Context(), stream.Latest, own)
	require.NoError(t, err)
}

func (b *bus) store(t *testing.T, mac topic.MAC, headers nats.Header) {
	t.Helper()
	_, err := b.operator.PublishMsg(t.Context(), &nats.Msg{Subject: latestPrefix + string(mac) + ".sensor-mode.1.sensor-1", Header: headers, Data: []byte("{}")})
	require.NoError(t, err)
}

// TestClock raises while the last message of a device stated a time that cannot be.
func TestClock(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	b.latest(t)
	const revoked topic.MAC = "e4fd45f654bf"
	cfg := testConfig()
	s := newSilence(b.own, &registry{active: []topic.MAC{device}}, &cfg)
	a := newAlarms(func(one alarm.Alarm) error { return alarm.Publish(b.own.Conn(), one) }, newMetrics(prometheus.NewRegistry()).alarms, slog.New(slog.DiscardHandler))
	look := func() { require.NoError(t, s.look(t.Context(), time.Now(), nil, a)) }
	stated := func(at string) nats.Header { return nats.Header{event.HeaderDeviceTime: []string{at}} }

	b.store(t, device, nil)
	b.store(t, revoked, stated("2199-01-01T00:00:00Z"))
	look()
	b.none(t)
	b.store(t, device, stated("1970-01-01T00:00:07Z"))
	look()
	told := b.next(t, ClockWrong)
	assert.True(t, told.Raised)
	assert.Equal(t, device, told.Subject)
	assert.Contains(t, told.Detail, "1970-01-01T00:00:07Z")
	look()
	b.none(t)
	b.store(t, device, nil)
	look()
	assert.False(t, b.next(t, ClockWrong).Raised)
}

// TestHeardWhenReceived has LATEST get a message long after the bridge received it.
func TestHeardWhenReceived(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	s := newSilence(nil, &registry{}, &cfg)
	now := time.Now()
	received := func(at time.Time) nats.Header {
		return nats.Header{event.HeaderReceived: []string{at.UTC().Format(time.RFC3339Nano)}}
	}
	s.note(latestPrefix+device+".sensor-mode.1.sensor-1", received(now.Add(-time.Hour)), now)
	assert.WithinDuration(t, now.Add(-time.Hour), s.seen[device], 0)
	s.note(latestPrefix+device+".sensor-mode.1.sensor-1", received(now.Add(time.Hour)), now)
	assert.WithinDuration(t, now, s.seen[device], 0, "a clock that is ahead of the server's")
}

func TestUnheard(t *testing.T) {
	t.Parallel()
	const other, revoked topic.MAC = "e4fd45f654bf", "e4fd45f654c0"
	var told []alarm.Alarm
	fleet := &registry{active: []topic.MAC{device, other}}
	cfg := testConfig()
	s := newSilence(nil, fleet, &cfg)
	a := newAlarms(func(one alarm.Alarm) error { told = append(told, one); return nil }, newMetrics(prometheus.NewRegistry()).alarms, slog.New(slog.DiscardHandler))
	now := time.Now()
	present := map[topic.MAC]time.Time{device: now, other: now, revoked: now}
	judge := func(after time.Duration) (subjects []string) {
		told = nil
		require.NoError(t, s.judgePresent(t.Context(), now.Add(after), present, a))
		for _, one := range told {
			assert.Equal(t, Unheard, one.Kind)
			subjects = append(subjects, fmt.Sprint(one.Subject, one.Raised))
		}
		slices.Sort(subjects)
		return subjects
	}
	assert.Empty(t, judge(cfg.UnheardAfter), "it has just come")
	heard := func(mac topic.MAC, after time.Duration) {
		s.note(latestPrefix+string(mac)+".sensor-mode.1.sensor-1", nil, now.Add(after))
	}
	heard(other, cfg.UnheardAfter)
	assert.Equal(t, []string{device + "true"}, judge(cfg.UnheardAfter+time.Second), "of the one nothing is stored, the other is heard")
	assert.Contains(t, told[0].Detail, "nothing of it was ever stored")
	heard(device, cfg.UnheardAfter+time.Second)
	assert.Equal(t, []string{device + "false"}, judge(cfg.UnheardAfter+2*time.Second))
	assert.Equal(t, []string{device + "true", string(other) + "true"}, judge(3*cfg.UnheardAfter))
	delete(present, device)
	assert.Equal(t, []string{device + "false"}, judge(3*cfg.UnheardAfter), "it has left")

	for n := range fewUnheard + 1 {
		mac := topic.MAC(fmt.Sprintf("00000000000%x", n))
		fleet.active = append(fleet.active, mac)
		present[mac] = now
	}
	assert.Equal(t, []string{string(other) + "false", "fleettrue"}, judge(4*cfg.UnheardAfter), "one alarm when it is the pipeline")
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	fleet := &registry{expiring: []registrar.Device{
		{MAC: device, NotAfter: time.Now().Add(24 * time.Hour)},
		{MAC: "e4fd45f654bf", NotAfter: time.Now().Add(365 * 24 * time.Hour)},
	}}
	w, err := New(testConfig(), fleet, func() ([]*x509.Certificate, error) {
		server, ca := &x509.Certificate{NotAfter: time.Now().Add(100 * 24 * time.Hour)}, &x509.Certificate{IsCA: true, NotAfter: time.Now().Add(100 * 24 * time.Hour)}
		server.Subject.CommonName, ca.Subject.CommonName = "server", "issuing CA"
		return []*x509.Certificate{server, ca}, nil
	}, secret.Login{}, b.own, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, w.checkCertificates(t.Context(), time.Now()))
	subjects := []string{b.next(t, Expiry).Subject, b.next(t, Expiry).Subject}
	slices.Sort(subjects)
	assert.Equal(t, device, subjects[0])
	assert.Contains(t, subjects[1], "issuing CA")
	fleet.mu.Lock()
	fleet.expiring[0].NotAfter = time.Now().Add(365 * 24 * time.Hour) // renewed
	fleet.mu.Unlock()
	require.NoError(t, w.checkCertificates(t.Context(), time.Now()))
	assert.False(t, b.next(t, Expiry).Raised)

	fleet.guessed = map[string]string{string(device): "5 wrong claiming codes"}
	require.NoError(t, w.checkGuesses(t.Context()))
	assert.True(t, b.next(t, Guessing).Raised)
	fleet.guessed = nil
	require.NoError(t, w.checkGuesses(t.Context()))
	assert.False(t, b.next(t, Guessing).Raised)

	w.RevocationList(time.Now().Add(100 * time.Hour))
	b.none(t)
	w.RevocationList(time.Now().Add(time.Hour))
	assert.True(t, b.next(t, CRL).Raised)
	w.RevocationList(time.Now().Add(100 * time.Hour))
	assert.False(t, b.next(t, CRL).Raised)
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := testConfig()
	require.NoError(t, good.Validate())
	for _, spoil := range []func(*Config){
		func(c *Config) { c.ExpiryWarning = 0 }, func(c *Config) { c.CRLWarning = -1 }, func(c *Config) { c.SilentAfter = 0 }, func(c *Config) { c.UnheardAfter = 0 },
		func(c *Config) { c.Takeovers = 1 }, func(c *Config) { c.FailedLogins = 0 }, func(c *Config) { c.MQTTURL = "" },
		func(c *Config) { c.Interval = 0 }, func(c *Config) { c.FailedWindow = 0 }, func(c *Config) { c.TakeoverWindow = 0 },
	} {
		bad := testConfig()
		spoil(&bad)
		require.Error(t, bad.Validate())
	}
}
