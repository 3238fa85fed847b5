package command

import (
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

func TestConfirmedByReport(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(30 * time.Second)
	c := b.controller(false)
	ack := b.send(strike, "mine", open)
	again := b.send(strike, "mine", open)
	assert.True(t, again.Duplicate, "one id is one command")
	r := b.result()
	assert.Equal(t, outcome.Confirmed, r.Outcome)
	assert.Equal(t, ack.Sequence, r.Sequence)
	assert.Equal(t, "mine", r.ID)
	assert.Equal(t, strike, r.Command)
	assert.JSONEq(t, `{"status":true}`, string(r.State))
	assert.Equal(t, []string{"cmnd/f2-e4fd45f654be/access-control-mode/J3/strike-1 " + open}, c.carriedOut())
}

func TestRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(30 * time.Second)
	c := b.controller(false)
	for name, bad := range map[string][2]string{
		"bad MAC":               {"f2.command.E4FD45F654BE.access-control-mode.3.strike-1", open},
		"bad component":         {"f2.command.e4fd45f654be.access-control-mode.3.gate-1", open},
		"a level too few":       {"f2.command.e4fd45f654be", open},
		"not JSON":              {strike, "{"},
		"another component's":   {strike, "1"},
		"a reading":             {"f2.command.e4fd45f654be.sensor-mode.1.sensor-1", `{"data":"01 03"}`},
		"no such command":       {strike, `{"explode":true}`},
		"no such siren's value": {siren, "2"},
	} {
		b.send(bad[0], "", bad[1])
		r := b.result()
		assert.Equal(t, outcome.Refused, r.Outcome, name)
		assert.NotEmpty(t, r.Detail, name)
		assert.Equal(t, bad[0], r.Command, name)
	}
	b.send(siren, "", "1")
	assert.Equal(t, outcome.Confirmed, b.result().Outcome, "the control")
	assert.Len(t, c.carriedOut(), 1)
}

// TestControllerAway: a persistent controller comes back after a command has expired, and another
// time before.
func TestControllerAway(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const maxAge = 6 * time.Second
	running := b.run(maxAge)
	c := b.controller(true)
	b.known(running, present)
	c.Disconnect(100)
	b.known(running, away)
	b.send(strike, "", open, waits)
	r := b.result()
	assert.Equal(t, outcome.Expired, r.Outcome)
	assert.False(t, r.Sent.IsZero(), "it waited at the broker")
	c = b.controller(true)
	b.send(siren, "", "1")
	assert.Equal(t, outcome.Confirmed, b.result().Outcome)
	assert.Len(t, c.carriedOut(), 1, "and the strike never")

	c.Disconnect(100)
	b.known(running, away)
	sent := b.send(siren, "", "1", waits)
	require.Eventually(t, func() bool { return running.watches.count.Load() == 1 }, patience, time.Millisecond)
	b.controller(true)
	r = b.result()
	assert.Equal(t, outcome.Confirmed, r.Outcome)
	assert.Equal(t, sent.Sequence, r.Sequence)
}

// TestAbsentControllerRefuses: a command is refused at once if the broker's log says that the
// controller is not connected, and only then.
func TestAbsentControllerRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	running := b.run(30 * time.Second)
	c := b.controller(true)
	b.known(running, present)
	c.Disconnect(100)
	b.known(running, away)
	b.send(strike, "", open)
	r := b.result()
	assert.Equal(t, outcome.Refused, r.Outcome)
	assert.Contains(t, r.Detail, "not connected since 20")
	assert.True(t, r.Sent.IsZero())
	b.send(strike, "", open, header{outcome.HeaderWait, "perhaps"})
	assert.Contains(t, b.result().Detail, outcome.HeaderWait)
	b.send(strike, "", `{"power-flag":2}`, waits)
	assert.Equal(t, outcome.Refused, b.result().Outcome, "what a toggle does later is not known")

	// The control: one that may wait reaches the controller when it is back.
	b.send(strike, "", open, waits)
	require.Eventually(t, func() bool { return running.watches.count.Load() == 1 }, patience, time.Millisecond)
	c = b.controller(true)
	assert.Equal(t, outcome.Confirmed, b.result().Outcome)
	assert.Len(t, c.carriedOut(), 1)

	// Without the broker's log it is not known who is connected.
	c.Disconnect(100)
	b.known(running, away)
	running.fleet.forget()
	b.send(siren, "", "1")
	require.Eventually(t, func() bool { return running.watches.count.Load() == 1 }, patience, time.Millisecond)
	b.controller(true)
	assert.Equal(t, outcome.Confirmed, b.result().Outcome)
}

// TestToggle: a toggle is turned into on or off by the last report, or refused. The
// controller never gets one.
func TestToggle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	running := b.run(30 * time.Second)
	c := b.controller(false)
	const toggled = `{"power-flag":2,"period":5}`
	refused := func(why string) {
		t.Helper()
		b.send(strike, "", toggled)
		r := b.result()
		assert.Equal(t, outcome.Refused, r.Outcome)
		assert.Contains(t, r.Detail, why)
	}
	refused("reported none")
	b.reported(`{"status":true}`, 2*maxStateAge)
	refused("old")
	b.reported(`{"state":1}`, 0)
	refused("has none")
	b.reported(`{"status":true}`, 0, header{event.HeaderRepeat, "1"})
	refused("repeat")
	place, err := topic.ParseSubject(strike)
	require.NoError(t, err)
	pending := running.watches.add(component(place), expectation{reports: true, status: new(false)})
	b.reported(`{"status":true}`, 0)
	refused("earlier command")
	running.watches.remove(pending)
	assert.Empty(t, c.carriedOut())

	b.send(strike, "", toggled, header{outcome.HeaderPerson, "olga"})
	// This controller says that it is on after each command, so it does not confirm an off.
	require.Eventually(t, func() bool { return len(c.carriedOut()) == 1 }, patience, time.Millisecond)
	assert.Contains(t, c.carriedOut()[0], `{"power-flag":0,"period":5}`)
	require.True(t, c.Publish("stat/f2-"+string(mac)+"/access-control-mode/J3/strike-1", 1, false, `{"status":false}`).WaitTimeout(patience))
	r := b.result()
	assert.Equal(t, outcome.Confirmed, r.Outcome)
	assert.Contains(t, r.Detail, "toggled: the strike was on")
	assert.Equal(t, "olga", r.Person)
	b.reported(`{"status":false}`, 0)
	b.send(strike, "", `{"power-flag":2}`)
	assert.Equal(t, outcome.Confirmed, b.result().Outcome)
	assert.Contains(t, c.carriedOut()[1], `{"power-flag":1}`)

	// The control: a toggle that reaches the controller would be seen.
	ears := b.client("control", nil)
	require.True(t, ears.Publish("cmnd/f2-"+string(mac)+"/access-control-mode/J3/strike-1", 1, false, toggled).WaitTimeout(patience))
	require.Eventually(t, func() bool { return len(c.carriedOut()) == 3 }, patience, time.Millisecond)
	assert.Contains(t, c.carriedOut()[2], toggled)
}

// TestPerson: a result names the person, unless the name could be something else.
func TestPerson(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(30 * time.Second)
	b.controller(false)
	for name, want := range map[string]string{"olga": "olga", "olga or 1=1": "", "": ""} {
		b.send(siren, "", "1", header{outcome.HeaderPerson, name})
		assert.Equal(t, want, b.result().Person)
	}
}

// TestBrokerPauses stops the broker for a while: commands are not carried out twice
// afterwards.
func TestBrokerPauses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(9 * time.Second)
	c := b.controller(false)
	require.NoError(t, b.broker.Signal(syscall.SIGSTOP))
	for _, body := range []string{open, `{"power-flag":1,"period":6}`} {
		b.send(strike, "", body)
	}
	b.send(siren, "", "1")
	outcomes := map[outcome.Outcome]int{}
	for range 3 { // the first of each component was offered to the broker
		outcomes[b.result().Outcome]++
	}
	assert.Equal(t, 3, outcomes[outcome.Refused]+outcomes[outcome.Expired], "%v", outcomes)
	require.NoError(t, b.broker.Signal(syscall.SIGCONT))
	b.send(siren, "", "1")
	require.Eventually(t, func() bool { return len(c.carriedOut()) > 0 }, patience, time.Millisecond)
	assert.Len(t, c.carriedOut(), 1, "what was taken back is not carried out")
}

// TestNotSentAgain: a process takes over from one that died after it had stored its intent.
func TestNotSentAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const maxAge = 6 * time.Second
	c := b.controller(false)
	ack := b.send(strike, "", open)
	raw, err := b.streams.JetStream().Stream(t.Context(), stream.Commands)
	require.NoError(t, err)
	m, err := raw.GetMsg(t.Context(), ack.Sequence)
	require.NoError(t, err)
	intent := outcome.Result{Sequence: ack.Sequence, Command: strike, Outcome: outcome.Sent, Issued: m.Time, Sent: time.Now(), At: time.Now()}
	message, err := intent.Msg()
	require.NoError(t, err)
	_, err = b.streams.JetStream().PublishMsg(t.Context(), message)
	require.NoError(t, err)
	running := b.run(maxAge)
	r := b.result()
	assert.Equal(t, outcome.Unknown, r.Outcome)
	assert.Equal(t, ack.Sequence, r.Sequence)
	assert.Empty(t, c.carriedOut())

	// A late report settles it.
	require.True(t, c.Publish("stat/f2-"+string(mac)+"/access-control-mode/J3/strike-1", 1, false, `{"status":true}`).WaitTimeout(patience))
	r = b.result()
	assert.Equal(t, outcome.Confirmed, r.Outcome)
	assert.Equal(t, ack.Sequence, r.Sequence)
	running.stop()

	// The next process knows that it has its outcome.
	b.run(maxAge)
	b.send(siren, "", "1")
	assert.Equal(t, outcome.Confirmed, b.result().Outcome)
	assert.Len(t, c.carriedOut(), 1)
}

// TestConsumerCreatedAgain: the consumer is created again, and JetStream delivers every command
// again.
func TestConsumerCreatedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	running := b.run(30 * time.Second)
	c := b.controller(false)
	for range 5 {
		b.send(siren, "", "1")
		require.Equal(t, outcome.Confirmed, b.result().Outcome)
	}
	running.stop()
	require.NoError(t, b.streams.JetStream().DeleteConsumer(t.Context(), stream.Commands, "bridge"))
	_, err := b.streams.Consumer(t.Context(), stream.Commands, "bridge")
	require.NoError(t, err)
	b.run(30 * time.Second)
	b.send(strike, "", open)
	assert.Equal(t, strike, b.result().Command, "the others have their outcomes")
	assert.Len(t, c.carriedOut(), 6)
}

// TestControllersSpelling: commands use the spelling that RAW has, and then the one of a
// newer message.
func TestControllersSpelling(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.streams.JetStream().PublishMsg(t.Context(), &nats.Msg{
		Subject: "f2.raw.stat.e4fd45f654be.alarm-mode.4.siren-1", Data: []byte(`{"status":true}`),
		Header: nats.Header{event.HeaderTopic: {"stat/f2-E4:FD:45:F6:54:BE/alarm-mode/4/siren-1"}, event.HeaderReceived: {time.Now().Format(time.RFC3339Nano)}},
	})
	require.NoError(t, err)
	b.run(30 * time.Second)
	observer := b.client("observer", nil)
	topics := make(chan string, 10)
	b.subscribe(observer, "cmnd/#", func(m mqtt.Message) { topics <- m.Topic() })
	b.send(strike, "", open)
	assert.Equal(t, "cmnd/f2-E4:FD:45:F6:54:BE/access-control-mode/3/strike-1", <-topics)
	c := b.controller(false)
	require.True(t, c.Publish("tele/f2-e4-fd-45-f6-54-be/alarm-mode/J4/motion-sensor-1", 1, false, `{"status":true}`).WaitTimeout(patience))
	require.Eventually(t, func() bool {
		b.send(siren, "", "1")
		return <-topics == "cmnd/f2-e4-fd-45-f6-54-be/alarm-mode/J4/siren-1"
	}, patience, time.Millisecond)
}

// TestRotation changes the credential back and forth while commands are sent: none is lost or
// carried out twice.
func TestRotation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	running := b.run(30 * time.Second)
	c := b.controller(false)
	const commands = 60
	for n := range commands {
		if n%10 == 0 {
			user := "bridge"
			if n%20 == 0 {
				user = "bridge_b"
			}
			before := running.publisher.current()
			running.credential.Set(user, password)
			require.Eventually(t, func() bool { return running.publisher.current() != before }, patience, time.Millisecond)
		}
		b.send(siren, "", "1")
	}
	for range commands {
		assert.Equal(t, outcome.Confirmed, b.result().Outcome)
	}
	assert.Len(t, c.carriedOut(), commands)
}

// TestAnotherProcessWasFaster: another process stores the intent after this one has looked at
// RESULT.
func TestAnotherProcessWasFaster(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	running := b.run(6 * time.Second)
	c := b.controller(false)
	ack := b.send(strike, "", open)
	require.Equal(t, outcome.Confirmed, b.result().Outcome)
	require.Len(t, c.carriedOut(), 1)
	running.stop()
	consumer, err := b.streams.JetStream().CreateConsumer(t.Context(), stream.Commands, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	m, err := consumer.Next()
	require.NoError(t, err)
	o, err := newOrder(m, time.Minute)
	require.NoError(t, err)
	require.Equal(t, ack.Sequence, o.sequence)
	running = b.run(6 * time.Second)
	f, _, err := running.send(t.Context(), o)
	require.NoError(t, err)
	assert.Equal(t, unsent, f)
	assert.True(t, o.resumed)
	assert.Len(t, c.carriedOut(), 1)
}
