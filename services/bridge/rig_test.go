package bridge

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	patience = time.Minute
	password = "bridge password"
	// door is under cmnd, where a service may publish as well as a controller.
	door = "cmnd/f2-e4fd45f654be/access-control-mode/J3/strike-1"
)

// rig is a broker and a NATS server. Bridges run between them, one after the other.
type rig struct {
	cfg      mosquitto.Config
	broker   *mosquitto.Broker
	nats     natsserver.Config
	server   *natsserver.Server
	operator *stream.Client
	raw      jetstream.Stream
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	dir := accounttest.TempDir(tb)
	authority, err := identity.OpenAuthority(filepath.Join(dir, "ca"))
	require.NoError(tb, err)
	cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(tb, authority.IssueServer(cert, key, []string{"127.0.0.1"}))
	r := &rig{nats: natsservertest.Config(tb), cfg: mosquitto.Config{
		Dir: filepath.Join(dir, "mosquitto"), CAFile: authority.CAFile(), CertFile: cert, KeyFile: key,
		Users: map[string]string{"bridge": password}, Retained: true, Log: slog.New(slog.DiscardHandler),
	}}
	r.broker, err = mosquitto.Start(context.WithoutCancel(tb.Context()), r.cfg)
	if errors.Is(err, mosquitto.ErrNotInstalled) {
		accounttest.SkipMissing(tb, err)
	}
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, r.broker.Kill()) })
	r.server = natsservertest.Start(tb, r.nats)
	r.operator = r.connect(tb, natsserver.Operator, r.server.URL())
	_, err = r.operator.SetUp(tb.Context(), stream.Sizes{}, false)
	require.NoError(tb, err)
	r.raw, err = r.operator.JetStream().Stream(tb.Context(), stream.Raw)
	require.NoError(tb, err)
	return r
}

func (r *rig) connect(tb testing.TB, user, url string) *stream.Client {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	nc, err := stream.Connect(stream.Config{URL: url, CAFile: r.nats.CAFile}, user, secrettest.Credential(user, natsservertest.Password(user)), log)
	require.NoError(tb, err)
	tb.Cleanup(func() { natsservertest.Close(nc) })
	client, err := stream.NewClient(nc, natsfiles.Files, log)
	require.NoError(tb, err)
	return client
}

// life is one bridge, from its start until it is stopped or killed.
type life struct {
	*Bridge
	mqtt, nats *wire
	end        context.CancelFunc
	ended      chan error
}

// start starts a bridge. change is for its configuration and its wires.
func (r *rig) start(tb testing.TB, change ...func(*Config, *life)) *life {
	tb.Helper()
	l := &life{mqtt: newWire(tb, r.broker.Address()), nats: newWire(tb, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.server.Port()))), ended: make(chan error, 1)}
	l.mqtt.mqtt.Store(true)
	cfg := testConfig()
	cfg.URL, cfg.ClientID, cfg.Linger, cfg.MaxPayload = "tcp://"+l.mqtt.address(), "bridge", time.Millisecond, 1<<16
	for _, change := range change {
		change(&cfg, l)
	}
	client := r.connect(tb, natsserver.Bridge, "tls://"+l.nats.address())
	var err error
	l.Bridge, err = New(cfg, secrettest.Credential("bridge", password), client, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	require.NoError(tb, err)
	ctx, end := context.WithCancel(context.WithoutCancel(tb.Context()))
	l.end = end
	var running sync.WaitGroup
	running.Go(func() { l.ended <- l.Run(ctx) })
	tb.Cleanup(func() { end(); running.Wait() })
	return l
}

// ready waits until the bridge is subscribed.
func (l *life) ready(tb testing.TB) *life {
	tb.Helper()
	require.Eventually(tb, func() bool { return testutil.ToFloat64(l.metrics.connected) == 1 }, patience, time.Millisecond)
	return l
}

// stop stops the bridge in order.
func (l *life) stop(tb testing.TB) {
	tb.Helper()
	l.end()
	require.NoError(tb, <-l.ended)
}

// kill ends the bridge so that nothing more leaves it.
func (l *life) kill() {
	l.mqtt.cut()
	l.nats.cut()
	l.end()
}

// publisher is a controller's connection.
func (r *rig) publisher(tb testing.TB) mqtt.Client {
	tb.Helper()
	return r.connectMQTT(tb, "controller")
}

// publisher2 is the connection of another controller.
func (r *rig) publisher2(tb testing.TB) mqtt.Client {
	tb.Helper()
	return r.connectMQTT(tb, "other controller")
}

func (r *rig) connectMQTT(tb testing.TB, id string) mqtt.Client {
	tb.Helper()
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + r.broker.Address()).
		SetClientID(id).SetUsername("bridge").SetPassword(password).SetAutoReconnect(false))
	token := client.Connect()
	require.True(tb, token.WaitTimeout(patience))
	require.NoError(tb, token.Error())
	tb.Cleanup(func() { client.Disconnect(100) })
	return client
}

func publish(tb testing.TB, client mqtt.Client, topic, body string) {
	tb.Helper()
	token := client.Publish(topic, 1, false, body)
	require.True(tb, token.WaitTimeout(patience))
	require.NoError(tb, token.Error())
}

// stored returns the messages on RAW after a sequence.
func (r *rig) stored(tb testing.TB, behind uint64) (all []*nats.Msg) {
	tb.Helper()
	info, err := r.raw.Info(tb.Context())
	require.NoError(tb, err)
	last := info.State.LastSeq
	if last <= behind {
		return nil
	}
	consumer, err := r.raw.OrderedConsumer(tb.Context(), jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: behind + 1})
	require.NoError(tb, err)
	messages, err := consumer.Messages(jetstream.PullMaxMessages(5000))
	require.NoError(tb, err)
	defer messages.Stop()
	for {
		m, err := messages.Next()
		require.NoError(tb, err)
		all = append(all, &nats.Msg{Subject: m.Subject(), Data: m.Data(), Header: m.Headers()})
		if meta, err := m.Metadata(); err != nil || meta.Sequence.Stream >= last {
			return all
		}
	}
}

func bodies(all []*nats.Msg) (list []string, marked int) {
	for _, m := range all {
		list = append(list, string(m.Data))
		if m.Header.Get(event.HeaderRepeat) != "" {
			marked++
		}
	}
	return list, marked
}

// awaitStored waits until the last message of RAW has a body. It returns all messages after a
// sequence.
func (r *rig) awaitStored(tb testing.TB, behind uint64, last string) []*nats.Msg {
	tb.Helper()
	require.Eventually(tb, func() bool {
		m, err := r.raw.GetLastMsgForSubject(tb.Context(), "f2.raw.>")
		return err == nil && string(m.Data) == last
	}, patience, 5*time.Millisecond, "RAW does not get %s", last)
	return r.stored(tb, behind)
}

func (r *rig) lastSequence(tb testing.TB) uint64 {
	tb.Helper()
	last, err := r.operator.LastSequence(tb.Context(), stream.Raw)
	require.NoError(tb, err)
	return last
}

func TestDoorOpensAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.start(t).ready(t)
	controller := r.publisher(t)
	l.mqtt.noAcks.Store(true)
	const open, closed = `{"status":true}`, `{"status":false}`
	publish(t, controller, door, open)
	publish(t, controller, door, closed)
	r.awaitStored(t, 0, closed)
	l.nats.hold()
	publish(t, controller, door, open) // it is not stored
	require.Eventually(t, func() bool { return testutil.ToFloat64(l.metrics.received) >= 3 }, patience, time.Millisecond)
	l.kill()

	second := r.start(t)
	got, marked := bodies(r.awaitStored(t, 0, open))
	require.Eventually(t, func() bool {
		got, marked = bodies(r.stored(t, 0))
		return len(got) >= 3
	}, patience, time.Millisecond)
	assert.Equal(t, []string{open, closed, open}, got)
	assert.Equal(t, 1, marked)
	require.Eventually(t, func() bool { return testutil.ToFloat64(second.metrics.duplicates) == 2 }, patience, time.Millisecond)
	second.stop(t)
	for _, header := range []string{jetstream.MsgIDHeader, event.HeaderTopic} {
		for _, m := range r.stored(t, 0) {
			assert.Empty(t, m.Header.Get(header))
		}
	}
	last, err := r.operator.Last(t.Context(), "DEAD_LETTER", "f2.dead.bridge.repeated_delivery.e4fd45f654be")
	require.NoError(t, err)
	assert.Equal(t, "2", last.Header.Get("F2-Count"))
	assert.Empty(t, last.Data)
}
