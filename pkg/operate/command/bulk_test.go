package command_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/command"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

func TestBody(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind       topic.ComponentKind
		power      string
		period     int
		want, fail string
	}{
		{topic.Strike, "on", 5, `{"power-flag":1,"period":5}`, ""},
		{topic.Strike, "on", 0, `{"power-flag":1}`, ""},
		{topic.Strike, "off", 5, `{"power-flag":0}`, ""},
		{topic.Strike, "toggle", 0, `{"power-flag":2}`, ""},
		{topic.Siren, "on", 0, "1", ""},
		{topic.Siren, "off", 0, "0", ""},
		{topic.Reader, "", 0, "", ""},
		{topic.Siren, "toggle", 0, "", "not toggled"},
		{topic.Siren, "on", 5, "", "no period"},
		{topic.Strike, "on", 256, "", "1 to 255"},
		{topic.Strike, "on", -1, "", "1 to 255"},
		{topic.Strike, "", 5, "", "needs the power"},
		{topic.Strike, "open", 0, "", "on, off or toggle"},
		{topic.Sensor, "on", 0, "", "a sensor cannot"},
	} {
		body, err := command.Body(c.kind, c.power, c.period)
		if c.fail != "" {
			require.ErrorContains(t, err, c.fail)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, c.want, string(body))
		place := topic.Topic{Root: topic.Cmnd, Mode: topic.AccessControlMode, Component: topic.Component{Kind: c.kind, Number: 1}}
		_, err = new(payload.Parser).Parse(place, body)
		require.NoError(t, err, "the bridge takes it")
	}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	for _, connector := range []string{"J3", "j3", "3"} {
		p, err := command.Place("E4:FD:45:F6:54:BE", "", connector, "strike-1")
		require.NoError(t, err)
		assert.Equal(t, strike, p.CommandSubject())
	}
	p, err := command.Place("e4-fd-45-f6-54-be", "alarm-mode", "4", "door-sensors")
	require.NoError(t, err)
	assert.Equal(t, topic.AlarmMode, p.Mode)
	for component, mode := range map[string]topic.Mode{"siren-1": topic.AlarmMode, "sensor-2": topic.SensorMode, "exit-buttons": topic.AccessControlMode} {
		p, err := command.Place("e4fd45f654be", "", "1", component)
		require.NoError(t, err)
		assert.Equal(t, mode, p.Mode)
	}
	for _, bad := range [][4]string{{"e4", "", "1", "strike-1"}, {"e4fd45f654be", "", "100", "strike-1"}, {"e4fd45f654be", "", "1", "gate-1"}, {"e4fd45f654be", "door", "1", "strike-1"}, {"e4fd45f654be", "", "1.x", "strike-1"}} {
		_, err := command.Place(bad[0], bad[1], bad[2], bad[3])
		require.Error(t, err, bad)
	}
}

func TestSelection(t *testing.T) {
	t.Parallel()
	place, err := topic.ParseSubject(strike)
	require.NoError(t, err)
	for text, want := range map[string]bool{
		"component=strike-*":                          true,
		"mode=access-control-mode,component=strike-*": true,
		"mac=E4-FD-*, connector=J3":                   true,
		"mac=02*":                                     false,
		"component=siren-*":                           false,
		"connector=J4":                                false,
		"mode=alarm-mode":                             false,
	} {
		s, err := command.ParseSelection(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, s.Matches(place), text)
	}
	for _, text := range []string{"", "component", "component=", "door=1", "mac=1,mac=2", "component=a,,"} {
		_, err := command.ParseSelection(text)
		require.Error(t, err, text)
	}
}

// TestBulk: commands are sent once each, and no more after too many failures.
func TestBulk(t *testing.T) {
	t.Parallel()
	r := newTrial(t, natsserver.Operator)
	consumer, err := r.operator.JetStream().Consumer(t.Context(), stream.Commands, "bridge")
	require.NoError(t, err)
	consuming, err := consumer.Consume(func(m jetstream.Msg) { // strike-5 and after it are refused
		o := outcome.Confirmed
		if place, err := topic.ParseSubject(m.Subject()); err == nil && place.Component.Number >= 5 {
			o = outcome.Refused
		}
		r.result(m, o)
		_ = m.Ack()
	})
	require.NoError(t, err)
	t.Cleanup(func() { consuming.Drain(); <-consuming.Closed() })
	bulk := command.Bulk{Rate: 20, MaxFailures: 2}
	for n := range 30 {
		o := order(t, "")
		o.Place.Component.Number = n
		bulk.Orders = append(bulk.Orders, o)
	}
	told := 0
	bulk.Done = func(done int, _ *command.BulkLine) { told++; assert.Equal(t, told, done) }
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	report := r.sender.DoAll(ctx, bulk)
	assert.Equal(t, 5, report.Succeeded)
	assert.GreaterOrEqual(t, report.Failed, 2)
	assert.Positive(t, report.NotSent)
	assert.Equal(t, 30, report.Succeeded+report.Failed+report.NotSent)
	assert.Equal(t, report.Succeeded+report.Failed, told)
	assert.Equal(t, told, r.stored(stream.Commands, ">"))
	var failure *command.FailureError
	require.ErrorAs(t, report.Failure(), &failure)
	assert.Equal(t, command.ExitNotDone, failure.Code)

	// The control: without a bound all are sent.
	bulk.Rate, bulk.MaxFailures, bulk.Done = 1000, 1000, nil
	report = r.sender.DoAll(ctx, bulk)
	assert.Zero(t, report.NotSent)
	assert.Len(t, report.Lines, 30)

	// Who gives up does not know what becomes of it.
	consuming.Drain()
	<-consuming.Closed()
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	bulk.Orders = bulk.Orders[:1]
	require.ErrorAs(t, r.sender.DoAll(short, bulk).Failure(), &failure)
	assert.Equal(t, command.ExitUnknown, failure.Code)
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for o, code := range map[outcome.Outcome]int{
		outcome.Confirmed: command.ExitDone, outcome.Delivered: command.ExitDone, outcome.Refused: command.ExitNotDone,
		outcome.Expired: command.ExitNotDone, outcome.Unknown: command.ExitUnknown,
	} {
		err := (&command.Answer{Result: outcome.Result{Outcome: o}}).Failure()
		if code == command.ExitDone {
			require.NoError(t, err)
			continue
		}
		var failure *command.FailureError
		require.ErrorAs(t, err, &failure)
		assert.Equal(t, code, failure.Code)
	}
	assert.True(t, access.ValidName(access.Caller()))
}
