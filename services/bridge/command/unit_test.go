package command

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// TestSchedule: a command that is released by its limit expires by its deadline, on the
// broker's clock of whole seconds, whenever the broker reads it.
func TestSchedule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, rapid.Int64Range(0, 999_999_999).Draw(t, "now"))
		left := time.Duration(rapid.Int64Range(-int64(time.Second), int64(MaxAge)).Draw(t, "left"))
		deadline := now.Add(left)
		expiry, limit, ok := schedule(now, deadline)
		if !ok {
			require.Less(t, left, 4*time.Second, "there was time enough")
			return
		}
		require.True(t, limit.After(now), "the broker has some time to answer")
		read := now.Add(time.Duration(rapid.Int64Range(0, int64(limit.Sub(now))).Draw(t, "read")))
		// Mosquitto adds the expiry to its second, and gives out until that has passed.
		last := time.Unix(read.Unix()+int64(expiry)+1, 0)
		require.False(t, last.After(deadline), "given out %s late", last.Sub(deadline))
	})
}

func TestAttempt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, test := range map[string]struct {
		do   func(a *attempt)
		want fate
	}{
		"nothing":                   {func(*attempt) {}, unsent},
		"offered":                   {func(a *attempt) { a.offer() }, withdrawn},
		"released":                  {func(a *attempt) { a.offer(); a.release(now) }, released},
		"taken":                     {func(a *attempt) { a.offer(); a.release(now); a.take() }, taken},
		"too late":                  {func(a *attempt) { a.offer(); a.release(now.Add(time.Minute)); a.take() }, withdrawn},
		"given up":                  {func(a *attempt) { a.offer(); a.end(); a.release(now); a.take() }, withdrawn},
		"given up after a release":  {func(a *attempt) { a.offer(); a.release(now); a.end(); a.take() }, taken},
		"answered but not released": {func(a *attempt) { a.offer(); a.take() }, withdrawn},
	} {
		a := &attempt{limit: now.Add(time.Second)}
		test.do(a)
		assert.Equal(t, test.want, a.end(), name)
	}
}

func TestSpelling(t *testing.T) {
	t.Parallel()
	command := topic.Topic{Root: topic.Cmnd, MAC: mac, Mode: topic.AccessControlMode, Connector: 3, Component: topic.Component{Kind: topic.Reader, Number: 1}, Verb: topic.Success}
	for heard, want := range map[string]string{
		"tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1":      "cmnd/f2-e4fd45f654be/access-control-mode/J3/reader-1/success",
		"stat/f2-E4FD45F654BE/sensor-mode/1/sensor-1":       "cmnd/f2-E4FD45F654BE/access-control-mode/3/reader-1/success",
		"cmnd/f2-e4-fd-45-f6-54-be/sensor-mode/1/sensor-1":  "cmnd/f2-e4-fd-45-f6-54-be/access-control-mode/3/reader-1/success",
		"tele/f2-E4:FD:45:F6:54:BE/sensor-mode/J1/sensor-1": "cmnd/f2-E4:FD:45:F6:54:BE/access-control-mode/J3/reader-1/success",
	} {
		parsed, err := topic.Parse(heard)
		require.NoError(t, err)
		got := heardAs(parsed, heard, spelling{}).spell(command)
		assert.Equal(t, want, got)
		parsed, err = topic.Parse(got)
		require.NoError(t, err)
		assert.Equal(t, command, parsed, "it is the same component")
	}
	// A connector without J in any firmware tells nothing.
	bare := heardAs(topic.Topic{MAC: mac, Connector: 7}, "tele/f2-e4fd45f654be/sensor-mode/7/sensor-1", spelling{})
	assert.Equal(t, spelling{}, bare)
}

func TestPresence(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	const in, kick = "1795900000: New client connected from 192.0.2.1:4711 as e4-fd-45-f6-54-be (p2, c1, k60, u'e4-fd-45-f6-54-be').",
		"1795900000: New client connected from 192.0.2.9:4711 as e4-fd-45-f6-54-be (p2, c1, k60, u'registrar')."
	for name, test := range map[string]struct {
		lines []string // one a second
		since int
		away  bool
	}{
		"nothing known":         {nil, 5, false},
		"never left":            {[]string{in}, 5, false},
		"left":                  {[]string{in, "1795900000: Client e4-fd-45-f6-54-be disconnected."}, 5, true},
		"connection closed":     {[]string{in, "Client e4-fd-45-f6-54-be closed its connection."}, 5, true},
		"timed out":             {[]string{"1: Client e4-fd-45-f6-54-be has exceeded timeout, disconnecting."}, 5, true},
		"left 2.1":              {[]string{in, "1795900000: Client e4-fd-45-f6-54-be [192.0.2.1:4711] disconnected: exceeded timeout."}, 5, true},
		"its cipher in 2.1":     {[]string{in, "1795900000: Client e4-fd-45-f6-54-be negotiated TLSv1.3 cipher TLS_AES_256_GCM_SHA384"}, 5, false},
		"another under its id":  {[]string{in, "Client e4-fd-45-f6-54-be disconnected, not authorised."}, 5, false},
		"left later":            {[]string{in, in, in, in, in, in, "Client e4-fd-45-f6-54-be disconnected."}, 5, false},
		"came back":             {[]string{in, "Client e4-fd-45-f6-54-be disconnected.", in}, 5, false},
		"connected anew":        {[]string{in, "Client e4-fd-45-f6-54-be already connected, closing old connection.", in}, 5, false},
		"thrown out":            {[]string{in, "Client e4-fd-45-f6-54-be already connected, closing old connection.", kick, "Client e4-fd-45-f6-54-be disconnected."}, 5, true},
		"another":               {[]string{in, "Client e4-fd-45-f6-54-bf disconnected."}, 5, false},
		"somebody's client id":  {[]string{"Client E4FD45F654BE disconnected."}, 5, false},
		"another kind of lines": {[]string{"Sending PINGRESP to e4-fd-45-f6-54-be", "", ": ", "Client", "Client "}, 5, false},
	} {
		f := newFleet()
		for i, line := range test.lines {
			f.read(line, at(i))
		}
		assert.Equal(t, test.away, f.awaySince(mac, at(test.since)), name)
		f.forget()
		assert.False(t, f.awaySince(mac, at(test.since)), name)
	}
}

func TestExpectation(t *testing.T) {
	t.Parallel()
	on, off := `{"timestamp":"2026-11-29 10:00:00","status":true}`, `{"status":false}`
	for _, test := range []struct {
		kind          topic.ComponentKind
		body          string
		onMet, offMet bool
	}{
		{topic.Strike, `{"power-flag":1,"period":5}`, true, false},
		{topic.Strike, `{"power-flag":0}`, false, true},
		{topic.Strike, `{"power-flag":2}`, true, true},
		{topic.Strike, "", true, true},
		{topic.Siren, "1", true, false},
		{topic.Siren, "0", false, true},
		{topic.Reader, "1", false, false},
		{topic.DoorSensors, "", true, true},
	} {
		o := &order{body: []byte(test.body), place: topic.Topic{Root: topic.Cmnd, Component: topic.Component{Kind: test.kind, Number: 1}}}
		e := o.expects()
		assert.Equal(t, test.onMet, e.met(topic.Stat, test.kind, []byte(on)), "%v %q", test.kind, test.body)
		assert.Equal(t, test.offMet, e.met(topic.Stat, test.kind, []byte(off)), "%v %q", test.kind, test.body)
		assert.False(t, e.met(topic.Tele, test.kind, []byte(on)))
		if e.status != nil {
			assert.False(t, e.met(topic.Stat, test.kind, []byte(`{"status":"on"}`)))
			assert.False(t, e.met(topic.Stat, test.kind, []byte(`nonsense`)))
		}
	}
	asked := &order{place: topic.Topic{Component: topic.Component{Kind: topic.Sensor, Number: 1}}}
	assert.True(t, asked.expects().met(topic.Tele, topic.Sensor, []byte("{}")), "a sensor that is asked answers with a reading")
	assert.Nil(t, state(topic.Reader, []byte(`{"data":"personal"}`)))
	assert.JSONEq(t, on, string(state(topic.Strike, []byte(on))))
	assert.Nil(t, state(topic.Strike, []byte("nonsense")))
}

// TestReportsGoInOrder: a report goes to the first command that expects it.
func TestReportsGoInOrder(t *testing.T) {
	t.Parallel()
	w := newWatches()
	place := topic.Topic{Root: topic.Stat, MAC: mac, Component: topic.Component{Kind: topic.Siren, Number: 1}}
	yes, no := true, false
	w.report(place, []byte(`{"status":true}`)) // nobody waits
	first := w.add(component(place), expectation{reports: true, status: &yes})
	second := w.add(component(place), expectation{reports: true, status: &no})
	third := w.add(component(place), expectation{reports: true, status: &yes})
	w.report(place, []byte(`{"status":false}`))
	w.report(place, []byte(`{"status":true}`))
	assert.Empty(t, third.reported)
	assert.Len(t, first.reported, 1)
	assert.Len(t, second.reported, 1)
	w.remove(third)
	w.remove(third)
	assert.Zero(t, w.count.Load())
	assert.Empty(t, w.places)
}

func TestConsumerName(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "bridge", ConsumerName("f2mesh-bridge"))
	assert.Equal(t, "bridge-north", ConsumerName("f2mesh-bridge-north"))
	assert.Equal(t, "my-own-bridge", ConsumerName("my own.bridge"))
}

func TestAgeIsBounded(t *testing.T) {
	t.Parallel()
	for age, ok := range map[time.Duration]bool{0: false, MinAge - 1: false, MinAge: true, MaxAge: true, MaxAge + 1: false} {
		_, err := New(Config{URL: "tcp://127.0.0.1:1", MaxAge: age}, secret.Login{}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		assert.Equal(t, ok, err == nil, age)
	}
}

// TestJudge covers the outcomes of a command that no report confirmed.
func TestJudge(t *testing.T) {
	t.Parallel()
	sent := time.Now()
	for name, test := range map[string]struct {
		fate                 fate
		away, heard, resumed bool
		want                 outcome.Outcome
	}{
		"taken, and nothing known":       {taken, false, false, false, outcome.Unknown},
		"taken, and away":                {taken, true, false, false, outcome.Expired},
		"taken, and heard since":         {taken, false, true, false, outcome.Delivered},
		"taken, away, and heard since":   {taken, true, true, false, outcome.Unknown},
		"perhaps published, and away":    {released, true, false, false, outcome.Expired},
		"perhaps published, and heard":   {released, false, true, false, outcome.Unknown},
		"of another process, and away":   {released, true, false, true, outcome.Unknown},
		"of another process, and heard":  {released, false, true, true, outcome.Unknown},
		"perhaps published, and unheard": {released, false, false, false, outcome.Unknown},
	} {
		c := &Commands{fleet: newFleet()}
		if test.away {
			c.fleet.notice(mac, away, sent.Add(-time.Second))
		}
		if test.heard {
			c.fleet.hear(topic.Topic{Root: topic.Tele, MAC: mac, Connector: 1}, "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", sent.Add(time.Second))
		}
		got, detail := c.judge(&order{place: topic.Topic{MAC: mac}, sent: sent, resumed: test.resumed}, test.fate)
		assert.Equal(t, test.want, got, name)
		assert.NotEmpty(t, detail, name)
	}
}
