package simulator

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alecthomas/kong" //nolint:depguard // the test reads the tags as cmd does
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/frame"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func newTestRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func TestClockIsStrictlyIncreasing(t *testing.T) {
	var c clock
	now := time.Date(2026, 5, 4, 23, 59, 59, 999_998_700, time.UTC)
	var got []string
	for range 3 {
		c.tick(now)
		got = append(got, string(c.append(nil)))
	}
	c.tick(now.Add(-time.Hour)) // the clock was set back
	got = append(got, string(c.append(nil)))
	require.Equal(t, []string{
		"2026-05-04 23:59:59.999998", "2026-05-04 23:59:59.999999",
		"2026-05-05 00:00:00.000000", "2026-05-05 00:00:00.000001",
	}, got)
}

// TestReadingsDecode parses a thousand reports of every component of the demo fleet with
// the parsers of the pipeline.
func TestReadingsDecode(t *testing.T) {
	c := fleet.Demo(2)[1]
	for _, f := range []firmware{{mac: c.MAC}, {mac: c.MAC, old: true}, {mac: c.MAC, old: true, dashed: true}} {
		for _, connector := range c.Connectors {
			for _, part := range connector.Components {
				r := newTestRand()
				k := newComponent(f, connector, part, r)
				var tick clock
				for range 1000 {
					tick.tick(time.Now())
					requireDecodes(t, c, k.report, k.appendReading(nil, &tick, r), part, &tick)
				}
				if part.Sensor == nil && part.Kind != topic.Reader {
					requireDecodes(t, c, k.confirm, k.appendState(nil, &tick), part, &tick)
				}
			}
		}
	}
}

func requireDecodes(t *testing.T, c fleet.Controller, name string, body []byte, part fleet.InstalledComponent, tick *clock) {
	t.Helper()
	at, err := topic.Parse(name)
	require.NoError(t, err, name)
	require.Equal(t, c.MAC, at.MAC)
	require.Equal(t, part.Component, at.Component)
	p, err := new(payload.Parser).Parse(at, body)
	require.NoError(t, err, "%s %s", name, body)
	require.Equal(t, tick.last, p.Time.UnixMicro())
	if part.Sensor == nil {
		require.NotEmpty(t, p.State)
		return
	}
	points := part.Sensor.Template.Points
	if part.Sensor.Direct {
		require.Len(t, p.Numbers, len(points))
		return
	}
	end := len(p.Frame) - frameCRC
	require.Equal(t, frame.Checksum(p.Frame[:end]), uint16(p.Frame[end])|uint16(p.Frame[end+1])<<8)
	require.Equal(t, int(p.Frame[2]), end-frameHeader)
	require.Equal(t, part.Number, int(p.Frame[0]))
	for _, point := range points {
		v, err := point.Field.Decode(p.Frame)
		require.NoError(t, err, point.Label)
		if !v.IsText {
			require.GreaterOrEqual(t, v.Number, point.Signal.Low-0.001, point.Label)
			require.LessOrEqual(t, v.Number, point.Signal.High+0.001, point.Label)
		}
	}
}

func TestSignalsMove(t *testing.T) {
	points := fleet.Demo(1)[0].Connectors[0].Components[0].Sensor.Template.Points
	r := newTestRand()
	for i := range points {
		s := newSignal(&points[i], r)
		values := map[float64]bool{}
		for range 200 {
			values[s.step(r, 0.5).Number] = true
		}
		require.Greater(t, len(values), 10, points[i].Label)
	}
}

func TestFirmware(t *testing.T) {
	const fleetSize = 40
	var old, dashed int
	for i := range fleetSize {
		f := newFirmware("02f200000001", i, 0.1)
		require.False(t, i == 0 && f.old)
		if f.old {
			old++
		}
		if f.dashed {
			dashed++
		}
	}
	require.Equal(t, []int{4, 2}, []int{old, dashed})

	place := topic.Topic{MAC: "02f200000001", Mode: topic.SensorMode, Connector: 2, Component: topic.Component{Kind: topic.Sensor, Number: 3}}
	require.Equal(t, "tele/f2-02f200000001/sensor-mode/J2/sensor-3", firmware{mac: place.MAC}.topic(topic.Tele, place))
	require.Equal(t, "cmnd/f2-02-f2-00-00-00-01/sensor-mode/2/sensor-3", firmware{mac: place.MAC, old: true, dashed: true}.topic(topic.Cmnd, place))
}

func TestParseCommand(t *testing.T) {
	const at = "cmnd/f2-02f200000001/"
	for _, test := range []struct {
		topic, body string
		want        action
		period      int
		refused     bool
	}{
		{topic: at + "access-control-mode/J3/strike-1", body: `{"power-flag":1,"period":5}`, want: turnOn, period: 5},
		{topic: at + "access-control-mode/3/strike-1", body: `{"power-flag":0}`, want: turnOff},
		{topic: at + "access-control-mode/J3/strike-1", body: `{"power-flag":2,"period":255}`, want: toggle, period: 255},
		{topic: at + "access-control-mode/J3/strike-1", want: ask},
		{topic: at + "alarm-mode/J4/siren-1", body: "1", want: turnOn},
		{topic: at + "alarm-mode/J4/siren-1", body: "0", want: turnOff},
		{topic: at + "access-control-mode/J3/reader-1/success", body: "3", want: note},
		{topic: at + "access-control-mode/J3/reader-1/success", body: "4", refused: true},
		{topic: at + "alarm-mode/J4/siren-1", body: "2", refused: true},
		{topic: at + "access-control-mode/J3/strike-1", body: `{"period":5}`, refused: true},
		{topic: at + "access-control-mode/J3/strike-1", body: `{"power-flag":3,"period":5}`, refused: true},
		{topic: at + "access-control-mode/J3/strike-1", body: `{"power-flag":1,"period":256}`, refused: true},
		{topic: at + "access-control-mode/J3/strike-1", body: "{", refused: true},
		{topic: at + "nonsense", body: "1", refused: true},
	} {
		c, err := parseCommand(test.topic, []byte(test.body))
		require.Equal(t, test.refused, err != nil, "%s %s", test.topic, test.body)
		if err == nil {
			require.Equal(t, test.want, c.action)
			require.Equal(t, test.period, c.period)
		}
	}
}

func TestBudget(t *testing.T) {
	b := budget{good: 100, malformed: 7}
	var claimed, bad int
	for {
		first, n := b.claim(9)
		if n == 0 {
			break
		}
		for i := range int64(n) {
			claimed++
			if m, ok := b.isMalformed(first + i); ok {
				require.Equal(t, int64(bad), m)
				bad++
			}
		}
	}
	require.Equal(t, []int{107, 7}, []int{claimed, bad})
	require.False(t, b.left())

	endless := budget{malformed: 3}
	bad = 0
	for i := range int64(1000) {
		if _, ok := endless.isMalformed(i); ok {
			bad++
		}
	}
	require.Equal(t, 3, bad)
	require.True(t, endless.left())
}

func TestValidate(t *testing.T) {
	require.NoError(t, (&Config{}).Validate())
	for _, c := range []Config{
		{Interval: -1},
		{Messages: -1},
		{Malformed: -1},
		{Inflight: -1},
		{Inflight: maxInflight + 1},
		{OldFirmware: 1.1},
		{OldFirmware: -0.1},
		{Persistent: 1.1},
		{Persistent: -0.1},
		{Connecting: -1},
		{MaxAhead: -1},
		{Rate: 1, Interval: 1},
	} {
		require.Error(t, c.Validate())
	}
}

func TestConfigIsReadByKong(t *testing.T) {
	var c Config
	parser, err := kong.New(&c)
	require.NoError(t, err)
	_, err = parser.Parse([]string{"--rate=5", "--messages=100", "--ca-file=ca.crt", "--devices=devices"})
	require.NoError(t, err)
	require.Equal(t, defaultInflight, c.Inflight)
	require.Equal(t, defaultConnecting, c.Connecting)
	require.InDelta(t, 0.1, c.OldFirmware, 0)
	_, err = parser.Parse([]string{"--rate=-1"})
	require.ErrorContains(t, err, "rate")
	c.Interval, c.Rate = time.Second, 5
	require.ErrorContains(t, c.Validate(), "rate")
}

// TestRateGathers: at a rate, readings are sent many at a time, however often the
// controller looks.
func TestRateGathers(t *testing.T) {
	s := &Simulator{cfg: Config{Inflight: 64}, gate: newGate(0)}
	s.gate.open()
	start := time.Now()
	d := &device{sim: s, rate: 100, due: start}
	sent, bursts := 0, 0
	for at := start; at.Before(start.Add(2 * time.Second)); at = at.Add(time.Millisecond) {
		if n := d.allowance(at); n > 0 {
			d.owed -= float64(n)
			sent += n
			bursts++
		}
	}
	require.InDelta(t, 200, sent, 26)
	require.InDelta(t, 8, bursts, 1)
}

// TestReady: the simulator is ready while messages are acknowledged.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Simulator
		require.Error(t, s.Ready(t.Context()), "none was acknowledged yet")
		s.counters.acknowledged[0].Add(1)
		require.NoError(t, s.Ready(t.Context()))
		time.Sleep(leastPatience)
		require.NoError(t, s.Ready(t.Context()))
		time.Sleep(time.Nanosecond)
		require.Error(t, s.Ready(t.Context()), "none for too long")
		s.counters.acknowledged[answer].Add(1)
		require.NoError(t, s.Ready(t.Context()))
		s.cfg.Interval = time.Minute
		time.Sleep(2 * time.Minute)
		require.NoError(t, s.Ready(t.Context()), "the interval is long")
	})
}

// TestMaxAhead: the fleet pauses while too many messages wait for the bridge, and goes on
// when a quarter is left.
func TestMaxAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taken atomic.Int64
		s := &Simulator{cfg: Config{MaxAhead: 100, Taken: taken.Load}}
		d := &device{window: newWindow(1)}
		go s.watchAhead(t.Context(), []*device{d})
		for _, step := range []struct {
			acknowledged, taken int64
			held                bool
		}{{100, 0, false}, {101, 0, true}, {130, 100, true}, {130, 105, false}, {200, 105, false}} {
			s.counters.acknowledged[0].Store(step.acknowledged)
			taken.Store(step.taken)
			time.Sleep(holdEvery)
			synctest.Wait()
			require.Equal(t, step.held, s.held.Load(), step)
		}
		require.Len(t, d.window.wake, 1, "the end of the pause wakes the controllers")
	})
}

// TestHold: a paused controller builds nothing, and goes on afterwards.
func TestHold(t *testing.T) {
	s := &Simulator{cfg: Config{Inflight: 8}, gate: newGate(0)}
	s.gate.open()
	d := &device{sim: s}
	require.Equal(t, 8, d.allowance(time.Now()))
	s.held.Store(true)
	require.Zero(t, d.allowance(time.Now()))
	s.held.Store(false)
	require.Equal(t, 8, d.allowance(time.Now()))
}
