package command_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/command"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsservertest.Leftovers()...) }

const (
	strike   = "f2.command.e4fd45f654be.access-control-mode.3.strike-1"
	patience = 30 * time.Second
)

var open = []byte(`{"power-flag":1,"period":5}`)

// trial is a NATS server, and a sender of commands to it.
type trial struct {
	t        *testing.T
	operator *stream.Client
	sender   *command.Sender
	policy   *access.Policy
}

func newTrial(t *testing.T, user string) *trial {
	t.Helper()
	r := &trial{t: t, policy: access.Unrestricted()}
	var as *stream.Client
	r.operator, as = streamtest.NewClientAs(t, user)
	r.sender = command.NewSender(as, func() *access.Policy { return r.policy })
	return r
}

func order(t *testing.T, id string) command.Order {
	t.Helper()
	place, err := topic.ParseSubject(strike)
	require.NoError(t, err)
	return command.Order{Place: place, Body: open, ID: id, Person: "olga"}
}

// bridge answers each command on COMMANDS with the outcomes, as the bridge does.
func (r *trial) bridge(outcomes ...outcome.Outcome) (stop func()) {
	r.t.Helper()
	consumer, err := r.operator.JetStream().Consumer(r.t.Context(), stream.Commands, "bridge")
	require.NoError(r.t, err)
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		for _, o := range outcomes {
			r.result(m, o)
		}
		_ = m.Ack()
	})
	require.NoError(r.t, err)
	return func() { consuming.Drain(); <-consuming.Closed() }
}

func (r *trial) result(m jetstream.Msg, o outcome.Outcome) {
	meta, err := m.Metadata()
	if err != nil {
		r.t.Error(err)
		return
	}
	result := outcome.Result{
		Sequence: meta.Sequence.Stream, ID: m.Headers().Get(nats.MsgIdHdr), Person: m.Headers().Get(outcome.HeaderPerson),
		Command: m.Subject(), Outcome: o, Detail: m.Headers().Get(outcome.HeaderWait), Issued: meta.Timestamp, At: time.Now(),
	}
	message, err := result.Msg()
	if err == nil {
		_, err = r.operator.JetStream().PublishMsg(context.WithoutCancel(r.t.Context()), message)
	}
	if err != nil {
		r.t.Error(err)
	}
}

// stored is how many messages a stream has on a subject.
func (r *trial) stored(name, subject string) int {
	r.t.Helper()
	s, err := r.operator.JetStream().Stream(r.t.Context(), name)
	require.NoError(r.t, err)
	info, err := s.Info(r.t.Context(), jetstream.WithSubjectFilter(subject))
	require.NoError(r.t, err)
	n := 0
	for _, messages := range info.State.Subjects {
		n += int(messages)
	}
	return n
}

func (r *trial) do(o command.Order) command.Answer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	a, err := r.sender.Do(ctx, o)
	require.NoError(r.t, err)
	return a
}

// TestOutcome: the console and the operator get the outcome, with the person and the wish to wait.
func TestOutcome(t *testing.T) {
	t.Parallel()
	for _, user := range []string{natsserver.Operator, natsserver.Console} {
		r := newTrial(t, user)
		stop := r.bridge(outcome.Sent, outcome.Confirmed)
		o := order(t, "")
		o.Wait = true
		a := r.do(o)
		assert.Equal(t, outcome.Confirmed, a.Outcome)
		assert.Equal(t, "olga", a.Person)
		assert.Equal(t, "true", a.Detail)
		assert.Equal(t, strike, a.Command)
		assert.False(t, a.Repeated)
		assert.NotEqual(t, a.ID, r.do(o).ID, "without an id each is another command")
		stop()
	}
}

// TestSameID: a command is sent once under an id, also when COMMANDS does not know the id
// any more.
func TestSameID(t *testing.T) {
	t.Parallel()
	r := newTrial(t, natsserver.Console)
	const window = 200 * time.Millisecond
	s, err := r.operator.JetStream().Stream(t.Context(), stream.Commands)
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	cfg.Duplicates = window
	_, err = r.operator.JetStream().UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	stop := r.bridge(outcome.Sent, outcome.Unknown)
	first := r.do(order(t, "mine"))
	assert.Equal(t, outcome.Unknown, first.Outcome)
	assert.False(t, first.Repeated)
	stop()
	for i := range 1000 { // its outcome is not among the last ones
		m := outcome.Result{Sequence: uint64(100 + i), Command: "f2.command.e4fd45f654be.access-control-mode.3.strike-2", ID: "mine", Outcome: outcome.Refused, Issued: time.Now()}
		message, err := m.Msg()
		require.NoError(t, err)
		require.NoError(t, r.operator.JetStream().Conn().PublishMsg(message))
	}
	time.Sleep(2 * window)
	stop = r.bridge(outcome.Confirmed)
	again := r.do(order(t, "mine"))
	assert.Equal(t, outcome.Unknown, again.Outcome)
	assert.True(t, again.Repeated)
	assert.Equal(t, first.Sequence, again.Sequence)
	assert.Equal(t, 1, r.stored(stream.Commands, strike))

	// The late report of an unknown one counts.
	late := first.Result
	late.Outcome, late.At = outcome.Confirmed, time.Now()
	message, err := late.Msg()
	require.NoError(t, err)
	_, err = r.operator.JetStream().PublishMsg(t.Context(), message)
	require.NoError(t, err)
	assert.Equal(t, outcome.Confirmed, r.do(order(t, "mine")).Outcome)

	// The control: COMMANDS takes it again.
	m := nats.NewMsg(strike)
	m.Header.Set(nats.MsgIdHdr, "mine")
	ack, err := r.operator.JetStream().PublishMsg(t.Context(), m)
	require.NoError(t, err)
	assert.False(t, ack.Duplicate)
	stop()
}

// TestSameIDAtOnce: many senders with one id send one command, and all get its outcome.
func TestSameIDAtOnce(t *testing.T) {
	t.Parallel()
	r := newTrial(t, natsserver.Console)
	t.Cleanup(r.bridge(outcome.Sent, outcome.Confirmed))
	answers := make(chan command.Answer)
	o := order(t, "mine")
	for range 20 {
		go func() {
			a, err := r.sender.Do(t.Context(), o)
			if err != nil {
				t.Error(err)
			}
			answers <- a
		}()
	}
	sent := 0
	for range 20 {
		a := <-answers
		assert.Equal(t, outcome.Confirmed, a.Outcome)
		if !a.Repeated {
			sent++
		}
	}
	assert.Equal(t, 1, sent)
	assert.Equal(t, 1, r.stored(stream.Commands, strike))
}

func TestAnotherCommandUnderTheID(t *testing.T) {
	t.Parallel()
	r := newTrial(t, natsserver.Console)
	stop := r.bridge(outcome.Confirmed)
	r.do(order(t, "mine"))
	stop()
	o := order(t, "mine")
	o.Place.Component.Number = 2
	_, err := r.sender.Do(t.Context(), o)
	require.ErrorContains(t, err, "the id mine was used for another command")
	for _, id := range []string{"two words", "line\nbreak", "ümlaut", string(make([]byte, 1000))} {
		_, err := r.sender.Do(t.Context(), order(t, id))
		require.ErrorContains(t, err, "the id must have")
	}
}

// TestPending: the sender gives up, and asks again later.
func TestPending(t *testing.T) {
	t.Parallel()
	r := newTrial(t, natsserver.Console)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := r.sender.Do(ctx, order(t, ""))
	var pending *command.PendingError
	require.ErrorAs(t, err, &pending)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	t.Cleanup(r.bridge(outcome.Sent, outcome.Expired))
	a := r.do(order(t, pending.ID))
	assert.Equal(t, outcome.Expired, a.Outcome)
	assert.True(t, a.Repeated)
}

// TestDenied: what a person may not send is on record, and never on COMMANDS.
func TestDenied(t *testing.T) {
	t.Parallel()
	r := newTrial(t, natsserver.Operator)
	t.Cleanup(r.bridge(outcome.Confirmed))
	var err error
	r.policy, err = access.Parse([]byte(`people:
  - {name: vera, role: viewer, may: [{controllers: ["*"]}]}
  - {name: olga, role: operator, may: [{controllers: ["*"], components: ["strike-1"]}]}
  - {name: adam, role: admin, may: [{controllers: ["*"]}]}
`))
	require.NoError(t, err)
	for i, c := range []struct {
		person   string
		number   int
		mayDo    bool
		recorded string
	}{
		{"vera", 1, false, "vera"},
		{"olga", 2, false, "olga"},
		{"eve", 1, false, "eve"},
		{"", 1, false, ""},
		{"a b\n", 1, false, ""},
		{"olga", 1, true, "olga"},
		{"adam", 2, true, "adam"},
	} {
		o := order(t, "id-"+strconv.Itoa(i))
		o.Person, o.Place.Component.Number = c.person, c.number
		before := r.stored(stream.Commands, ">")
		a := r.do(o)
		assert.Equal(t, c.recorded, a.Person)
		if c.mayDo {
			assert.Equal(t, outcome.Confirmed, a.Outcome)
			assert.Equal(t, before+1, r.stored(stream.Commands, ">"), "the control")
			continue
		}
		assert.Equal(t, outcome.Refused, a.Outcome)
		assert.NotEmpty(t, a.Detail)
		assert.Equal(t, before, r.stored(stream.Commands, ">"))
	}
	assert.Equal(t, 5, r.stored(stream.Result, "f2.result.denied.>"))
	o := order(t, "id-0")
	o.Person = "adam"
	assert.Equal(t, outcome.Confirmed, r.do(o).Outcome, "an id that was never sent is free")
}
