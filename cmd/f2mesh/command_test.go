package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/simulator"
)

const (
	commandLife = 9 * time.Second
	// commandTolerance is how late this process itself may be in noting that a
	// controller carried a command out.
	commandTolerance = time.Second
	// mqttPassword is for this test only.
	mqttPassword = "bridge password that is long enough"
)

// commandTrial is a fleet, a broker, a NATS server and a bridge that is a process of
// its own, and what was seen of each command.
type commandTrial struct {
	t           *testing.T
	brokerCfg   mosquitto.Config
	broker      *mosquitto.Broker
	mqttsURL    string // of the controllers; the broker has it also after a restart
	ca, devices string
	nats        *natsserver.Server
	natsCfg     natsserver.Config
	secrets     string
	controllers []fleet.Controller
	sender      jetstream.JetStream
	log         *slog.Logger
	connections atomic.Int64 // of fleets that were played

	mu       sync.Mutex
	lasting  map[topic.MAC]bool      // controllers with a persistent session
	commands map[string]*seenCommand // by MAC and body
	results  map[uint64][]outcome.Outcome
}

// seenCommand is one command, as its sender, the broker and the controller saw it.
type seenCommand struct {
	sequence   uint64
	issued     time.Time
	published  int // to the broker
	carriedOut []simulator.CarriedOut
}

func newCommandTrial(t *testing.T, controllers int) *commandTrial {
	t.Helper()
	dir := accounttest.TempDir(t)
	authority, err := identity.OpenAuthority(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	r := &commandTrial{
		t: t, ca: authority.CAFile(), devices: filepath.Join(dir, "devices"), secrets: filepath.Join(dir, "secrets"),
		controllers: fleet.Demo(controllers), commands: map[string]*seenCommand{}, results: map[uint64][]outcome.Outcome{}, lasting: map[topic.MAC]bool{},
		natsCfg: natsservertest.Config(t), log: testLog(t),
	}
	cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, authority.IssueServer(cert, key, []string{"127.0.0.1"}))
	var macs []topic.MAC
	for _, c := range r.controllers {
		_, err := authority.IssueDevice(r.devices, c.MAC, c.SerialNumber)
		require.NoError(t, err)
		macs = append(macs, c.MAC)
	}
	r.brokerCfg = mosquitto.Config{
		Dir: filepath.Join(dir, "mosquitto"), CAFile: r.ca, CertFile: cert, KeyFile: key,
		Users: map[string]string{"bridge": mqttPassword, "operator": mqttPassword}, Log: slog.New(slog.DiscardHandler),
	}
	require.NoError(t, mosquitto.WriteDeviceACL(r.brokerCfg.Dir, macs))
	r.startBroker()
	t.Cleanup(func() { _ = r.broker.Kill() })
	r.brokerCfg.Port, r.brokerCfg.TLSPort, r.brokerCfg.PeoplePort = r.broker.Port(), r.broker.TLSPort(), r.broker.PeoplePort()
	r.brokerCfg.WebSocketPort = r.broker.WebSocketPort()
	r.mqttsURL = "ssl://" + r.broker.TLSAddress()
	r.nats = natsservertest.Start(t, r.natsCfg)
	require.NoError(t, os.Mkdir(r.secrets, 0o700))
	for name, value := range map[string]string{"mqtt_password": mqttPassword, "nats_bridge_password": natsservertest.Password(natsserver.Bridge)} {
		require.NoError(t, os.WriteFile(filepath.Join(r.secrets, name), []byte(value), 0o600))
	}
	operator, err := stream.NewClient(r.connect(natsserver.Operator), natsfiles.Files, r.log)
	require.NoError(t, err)
	_, err = operator.SetUp(t.Context(), stream.Sizes{}, false)
	require.NoError(t, err)
	console := r.connect(natsserver.Console)
	r.sender, err = jetstream.New(console)
	require.NoError(t, err)
	_, err = console.Subscribe("f2.result.>", r.result)
	require.NoError(t, err)
	r.observe()
	return r
}

func (r *commandTrial) connect(user string) *nats.Conn {
	r.t.Helper()
	nc, err := stream.Connect(stream.Config{URL: r.nats.URL(), CAFile: r.natsCfg.CAFile}, user, secrettest.Credential(user, natsservertest.Password(user)), r.log)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { natsservertest.Close(nc) })
	require.NoError(r.t, stream.WaitConnected(r.t.Context(), nc))
	return nc
}

func (r *commandTrial) startBroker() {
	r.t.Helper()
	var err error
	r.broker, err = mosquitto.Start(context.WithoutCancel(r.t.Context()), r.brokerCfg)
	if errors.Is(err, mosquitto.ErrNotInstalled) {
		accounttest.SkipMissing(r.t, err)
	}
	require.NoError(r.t, err)
}

// startBridge runs `f2mesh bridge`.
func (r *commandTrial) startBridge() *exec.Cmd {
	r.t.Helper()
	self, err := os.Executable()
	require.NoError(r.t, err)
	cmd := exec.CommandContext(context.Background(), self, "bridge", "--log-format=json", "--command-max-age="+commandLife.String())
	cmd.Env = append(os.Environ(), "F2MESH_TEST_RUN=1", "VAULT_ADDR=", "NATS_URL="+r.nats.URL(), "F2MESH_CA="+r.natsCfg.CAFile, "F2MESH_SECRETS_DIR="+r.secrets,
		"MQTT_URL=tcp://"+r.broker.Address())
	cmd.Stderr = r.t.Output()
	require.NoError(r.t, cmd.Start())
	r.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func (r *commandTrial) result(m *nats.Msg) {
	result, err := outcome.Parse(m.Header, m.Data)
	if err != nil || result.Outcome == outcome.Sent {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[result.Sequence] = append(r.results[result.Sequence], result.Outcome)
}

func (r *commandTrial) seen(mac topic.MAC, body string) *seenCommand {
	key := string(mac) + " " + body
	c := r.commands[key]
	if c == nil {
		c = &seenCommand{}
		r.commands[key] = c
	}
	return c
}

// observe counts what is published at the broker. What the broker sends again it
// marks, and keeps nothing for the observer.
func (r *commandTrial) observe() {
	r.t.Helper()
	count := func(_ mqtt.Client, m mqtt.Message) {
		if t, err := topic.Parse(m.Topic()); err == nil && !m.Duplicate() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.seen(t.MAC, string(m.Payload())).published++
		}
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + r.broker.PeopleAddress()).SetClientID("observer").
		SetUsername("operator").SetPassword(mqttPassword).SetMaxReconnectInterval(200 * time.Millisecond).
		SetOnConnectHandler(func(c mqtt.Client) { c.Subscribe("cmnd/#", 1, count) }))
	require.NoError(r.t, wait(client.Connect()))
	r.t.Cleanup(func() { client.Disconnect(0) })
}

// play plays controllers until stop.
func (r *commandTrial) play(controllers []fleet.Controller, persistent bool) (stop func()) {
	cfg := simulator.Config{
		Broker: r.mqttsURL, CAFile: r.ca, Devices: r.devices, Interval: 5 * time.Second,
		OnCommand: func(c simulator.CarriedOut) {
			body := string(c.Body)
			c.Body = nil
			r.mu.Lock()
			defer r.mu.Unlock()
			s := r.seen(c.MAC, body)
			s.carriedOut = append(s.carriedOut, c)
		},
	}
	if persistent {
		cfg.Persistent = 1
	}
	r.mu.Lock()
	for i := range controllers {
		r.lasting[controllers[i].MAC] = persistent
	}
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	played := simulator.New(cfg, controllers, slog.New(slog.DiscardHandler))
	running.Go(func() { _, _ = played.Run(ctx) })
	running.Go(func() {
		for played.Report().Connections == 0 && ctx.Err() == nil {
			pause(ctx, 10*time.Millisecond)
		}
		r.connections.Add(1)
	})
	return func() { cancel(); running.Wait() }
}

// roam plays controllers that come and go until ctx ends, and then stay until stop.
func (r *commandTrial) roam(ctx context.Context, controllers []fleet.Controller, persistent bool, random *rand.Rand) (stop func()) {
	var roaming sync.WaitGroup
	last := func() {}
	roaming.Go(func() {
		for ctx.Err() == nil {
			leave := r.play(controllers, persistent)
			pause(ctx, time.Duration(1+random.IntN(3000))*time.Millisecond)
			leave()
			pause(ctx, time.Duration(1+random.IntN(int(3*commandLife/2/time.Millisecond)))*time.Millisecond)
		}
		last = r.play(controllers, persistent)
	})
	return func() { roaming.Wait(); last() }
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// send sends command n to a strike; no two to one have the same body.
func (r *commandTrial) send(n int) {
	r.t.Helper()
	mac := r.controllers[n%len(r.controllers)].MAC
	k := n / len(r.controllers)
	body := fmt.Sprintf(`{"power-flag":%d,"period":%d}`, k%2, k/2%255+1)
	m := &nats.Msg{Subject: "f2.command." + string(mac) + ".access-control-mode.3.strike-1", Data: []byte(body), Header: nats.Header{}}
	m.Header.Set(nats.MsgIdHdr, strconv.Itoa(n))
	if n%3 > 0 { // the others are refused while the controller is away
		m.Header[outcome.HeaderWait] = []string{"true"}
	}
	issued := time.Now()
	ack, err := r.sender.PublishMsg(r.t.Context(), m)
	require.NoError(r.t, err)
	if n%10 == 0 { // the sender is not sure, and sends it again
		again, err := r.sender.PublishMsg(r.t.Context(), m)
		require.NoError(r.t, err)
		require.Equal(r.t, ack.Sequence, again.Sequence)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.seen(mac, body)
	c.sequence, c.issued = ack.Sequence, issued
}

// verdict counts what became of the commands.
type verdict struct {
	commands        int
	outcomes        map[outcome.Outcome]int
	without, double int           // outcomes
	late            int           // carried out after its life
	latest          time.Duration // age of the oldest that was carried out
	publishedTwice  int
	refuted         int // carried out although the outcome says that it was not
	twice           int // carried out twice, without a persistent session
	repeated        int // by the broker, to a persistent session (README, Promises)
}

func (r *commandTrial) verdict() verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := verdict{outcomes: map[outcome.Outcome]int{}}
	for key, c := range r.commands {
		if c.sequence == 0 {
			continue
		}
		v.commands++
		outcomes := r.results[c.sequence]
		switch {
		case len(outcomes) == 0:
			v.without++
		case len(outcomes) > 2, len(outcomes) == 2 && outcomes[0] != outcome.Unknown:
			v.double++
		default:
			v.outcomes[outcomes[len(outcomes)-1]]++
		}
		if len(outcomes) > 0 && (outcomes[0] == outcome.Refused || outcomes[0] == outcome.Expired) && len(c.carriedOut) > 0 {
			v.refuted++
		}
		if c.published > 1 {
			v.publishedTwice++
		}
		if again := max(len(c.carriedOut)-1, 0); r.lasting[topic.MAC(key[:12])] {
			v.repeated += again
		} else {
			v.twice += again
		}
		for _, done := range c.carriedOut {
			age := done.At.Sub(c.issued)
			v.latest = max(v.latest, age)
			if age > commandLife+commandTolerance {
				v.late++
			}
		}
	}
	return v
}

// TestCommandsUnderFire sends commands to controllers of both kinds, present and
// coming and going, while the bridge is killed and stopped, and the broker is killed
// and stands still. F2MESH_COMMANDS sets how many.
func TestCommandsUnderFire(t *testing.T) {
	t.Parallel()
	commands, controllers, between := 120, 12, 200*time.Millisecond
	if text := os.Getenv("F2MESH_COMMANDS"); text != "" {
		var err error
		commands, err = strconv.Atoi(text)
		require.NoError(t, err)
		controllers, between = 40, 50*time.Millisecond
	}
	r := newCommandTrial(t, controllers)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	fire, cease := context.WithCancel(t.Context())
	group := controllers / 4
	var stops []func()
	for i, persistent := range []bool{false, true} {
		stops = append(stops, r.play(r.controllers[i*group:(i+1)*group], persistent),
			r.roam(fire, r.controllers[(2+i)*group:(3+i)*group], persistent, rand.New(rand.NewPCG(seed, uint64(i)+1))))
	}
	t.Cleanup(func() {
		cease()
		for _, stop := range stops {
			stop()
		}
	})
	var trouble sync.WaitGroup
	trouble.Go(func() { r.trouble(fire, random) })
	for n := range commands {
		r.send(n)
		pause(t.Context(), between)
	}
	cease()
	trouble.Wait()
	eventually(t, func() bool { return r.verdict().without == 0 }, "commands without an outcome")
	// What the broker keeps for controllers that are back now is too late, were it
	// given out.
	pause(t.Context(), commandLife+2*time.Second)

	v := r.verdict()
	t.Logf("%+v", v)
	assert.Equal(t, commands, v.commands)
	assert.Zero(t, v.late, "carried out late")
	assert.Zero(t, v.publishedTwice, "sent twice")
	assert.Zero(t, v.twice, "carried out twice")
	assert.Zero(t, v.double, "more than one outcome")
	assert.Zero(t, v.refuted, "carried out, and the sender was told that it was not")
	assert.Positive(t, v.outcomes[outcome.Confirmed], "the control: commands are carried out")
}

// trouble makes it until ctx ends, and leaves a bridge and a broker that run.
func (r *commandTrial) trouble(ctx context.Context, random *rand.Rand) {
	process := r.startBridge()
	for ctx.Err() == nil {
		pause(ctx, time.Duration(1500+random.IntN(2500))*time.Millisecond)
		switch random.IntN(5) {
		case 0:
			_ = process.Process.Kill()
			_ = process.Wait()
			process = r.startBridge()
		case 1:
			_ = process.Process.Signal(syscall.SIGTERM)
			_ = process.Wait()
			process = r.startBridge()
		case 2:
			_ = r.broker.Signal(syscall.SIGSTOP)
			pause(ctx, time.Duration(1000+random.IntN(5000))*time.Millisecond)
			_ = r.broker.Signal(syscall.SIGCONT)
		case 3:
			_ = r.broker.Save()
			fallthrough
		case 4:
			_ = r.broker.Kill()
			r.startBroker()
		}
	}
}

// TestTrialOfCommandsFinds is the control: what the bridge did before, at least once,
// without expiry, and again when the outcome is not known.
func TestTrialOfCommandsFinds(t *testing.T) {
	t.Parallel()
	r := newCommandTrial(t, 2)
	stop := r.play(r.controllers[:1], true)
	t.Cleanup(r.play(r.controllers[1:], false))
	eventually(t, func() bool { return r.connections.Load() == 2 }, "a controller does not connect")
	ctx, cancel := context.WithCancel(t.Context())
	var forwarding sync.WaitGroup
	forwarding.Go(func() { r.forwardAsBefore(ctx) })
	t.Cleanup(func() { cancel(); forwarding.Wait() })
	r.send(0)
	eventually(t, func() bool { return len(r.carriedOut(0)) == 1 }, "the control: it is carried out")
	stop()
	r.send(2) // to the same controller, which is away
	eventually(t, func() bool { return r.publishedTo(0) == 2 }, "not published")
	require.NoError(t, r.broker.Signal(syscall.SIGSTOP))
	r.send(4)
	r.send(1) // to the other controller
	pause(ctx, commandLife)
	require.NoError(t, r.broker.Signal(syscall.SIGCONT))
	pause(ctx, commandTolerance)
	stop = r.play(r.controllers[:1], true)
	t.Cleanup(stop)
	eventually(t, func() bool { v := r.verdict(); return v.late > 0 && v.publishedTwice > 0 && v.twice > 0 }, "not found: %+v", r.verdict())
}

func (r *commandTrial) carriedOut(controller int) (all []simulator.CarriedOut) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, c := range r.commands {
		if key[:12] == string(r.controllers[controller].MAC) {
			all = append(all, c.carriedOut...)
		}
	}
	return all
}

func (r *commandTrial) publishedTo(controller int) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, c := range r.commands {
		if key[:12] == string(r.controllers[controller].MAC) {
			n += c.published
		}
	}
	return n
}

// forwardAsBefore publishes COMMANDS at QoS 1 until ctx ends.
func (r *commandTrial) forwardAsBefore(ctx context.Context) {
	js, err := jetstream.New(r.connect(natsserver.Operator))
	if !assert.NoError(r.t, err) { //nolint:testifylint // not on the test's goroutine
		return
	}
	consumer, err := js.CreateConsumer(ctx, stream.Commands, jetstream.ConsumerConfig{Durable: "before", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second})
	if !assert.NoError(r.t, err) { //nolint:testifylint // not on the test's goroutine
		return
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + r.broker.Address()).SetClientID("before").
		SetUsername("bridge").SetPassword(mqttPassword))
	if !assert.NoError(r.t, wait(client.Connect())) { //nolint:testifylint // not on the test's goroutine
		return
	}
	defer client.Disconnect(0)
	for ctx.Err() == nil {
		m, err := consumer.Next(jetstream.FetchMaxWait(time.Second))
		if err != nil {
			continue
		}
		t, err := topic.ParseSubject(m.Subject())
		if !assert.NoError(r.t, err) { //nolint:testifylint // not on the test's goroutine
			return
		}
		if client.Publish(t.MQTT(), 1, false, m.Data()).WaitTimeout(time.Second) {
			_ = m.Ack()
		}
	}
}
