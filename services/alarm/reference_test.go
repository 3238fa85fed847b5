package alarm

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// The reference: plain code over the whole list of readings, which knows neither streams nor
// expressions. raise and clear are the limits of a rule, hold its `for` in seconds.
type limits struct {
	raise, clear float64
	hold         int
	mac          byte // last digit of the controllers' addresses that it is for; 0: of all
	number       int  // of the sensors; 0: all
	// When it is in force: from a minute after 10:00 to another, or not then. Both 0: always.
	from, to int
	outside  bool
}

// selects reports whether the rule is for a sensor.
func (l *limits) selects(s topic.Topic) bool {
	return (l.mac == 0 || s.MAC[len(s.MAC)-1] == l.mac) && (l.number == 0 || s.Component.Number == l.number)
}

// begins returns from when on the rule is in force, at a time or after it.
func (l *limits) begins(t time.Time) time.Time {
	from, to := tenOClock.Add(time.Duration(l.from)*time.Minute), tenOClock.Add(time.Duration(l.to)*time.Minute)
	inside := !t.Before(from) && t.Before(to)
	switch {
	case l.from == l.to, inside != l.outside:
		return t
	case l.outside:
		return to
	case t.Before(from):
		return from
	}
	return from.AddDate(0, 0, 1)
}

// reading is one value of one sensor.
type reading struct {
	sensor int
	at     time.Time
	value  float64 // below 0: the message lacks it
}

// begun is when an alarm was raised and cleared; a zero time is never.
type begun struct{ raised, cleared time.Time }

// reference finds the alarms of one rule in the readings of one sensor.
func reference(l limits, all []reading) (found []begun) {
	var due time.Time // when the alarm is raised, while the value is above raise
	raised := false
	for _, r := range all {
		if !raised && !due.IsZero() && !r.at.Before(due) {
			found, raised = append(found, begun{raised: due}), true
		}
		if r.value < 0 {
			continue
		}
		switch {
		case raised && r.value < l.clear:
			found[len(found)-1].cleared = r.at
			raised, due = false, time.Time{}
		case !raised && r.value > l.raise && due.IsZero():
			if due = l.begins(r.at).Add(time.Duration(l.hold) * time.Second); !r.at.Before(due) {
				found, raised = append(found, begun{raised: r.at}), true
			}
		case !raised && r.value < l.clear:
			due = time.Time{}
		}
	}
	if !raised && !due.IsZero() { // it goes on to hold
		found = append(found, begun{raised: due})
	}
	return found
}

// tenOClock is when the first message was sent.
var tenOClock = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

// drawn are random rules and readings.
type drawn struct {
	limits   []limits
	sensors  []topic.Topic
	readings []reading
}

// draw draws them. Values change by up to half a step.
func draw(seed uint64, rules, sensors, readings int, step float64) (d drawn) {
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range rules {
		raise := 20 + 60*r.Float64()
		l := limits{raise: raise, clear: raise - 30*r.Float64()*float64(r.IntN(2)), hold: r.IntN(3) * r.IntN(20)}
		switch i % 6 {
		case 1:
			l.mac = "012"[r.IntN(3)]
		case 2:
			l.number = 1 + r.IntN(4)
		case 3:
			l.from, l.to, l.outside = 2+r.IntN(3), 6+r.IntN(3), r.IntN(2) == 0
		}
		d.limits = append(d.limits, l)
	}
	for i := range sensors {
		d.sensors = append(d.sensors, topic.Topic{
			MAC: topic.MAC(fmt.Sprintf("02f2%08x", i/4)), Mode: topic.SensorMode, Connector: 1, Component: topic.Component{Kind: topic.Sensor, Number: i%4 + 1},
		})
	}
	at := tenOClock
	values := make([]float64, sensors)
	for range readings {
		at = at.Add(time.Duration(r.IntN(500)) * time.Millisecond)
		i := r.IntN(sensors)
		values[i] = min(100, max(0, values[i]+step*(r.Float64()-0.5)))
		value := values[i]
		if r.IntN(20) == 0 {
			value = -1
		}
		d.readings = append(d.readings, reading{sensor: i, at: at, value: value})
	}
	return d
}

// yaml is the rules in the service's language.
func (d *drawn) yaml() string {
	var b strings.Builder
	fmt.Fprintln(&b, "rules:")
	for i, l := range d.limits {
		mac, component, schedule := "*", "sensor-*", ""
		if l.mac != 0 {
			mac = "02f2*" + string(l.mac)
		}
		if l.number != 0 {
			component = fmt.Sprint("sensor-", l.number)
		}
		if l.from != l.to {
			schedule = fmt.Sprintf(`, schedule: {from: "10:%02d", to: "10:%02d", outside: %t}`, l.from, l.to, l.outside)
		}
		fmt.Fprintf(&b, "- {name: rule-%d, mac: %q, component: %s, when: 'values[\"T\"] > %v', clear: 'values[\"T\"] < %v', for: %ds%s}\n", i, mac, component, l.raise, l.clear, l.hold, schedule)
	}
	return b.String()
}

func (d *drawn) message(r *rig, one reading) *nats.Msg {
	r.sequence++
	e := event.Decoded{ID: event.PlaceID(1, r.sequence), Time: one.at, Received: one.at, Root: "tele", ControllerID: 1, DeviceID: 2, Device: "s", MetadataVersion: "1"}
	e.Values = []event.DataPoint{{DataPointID: 1, Label: "Other", Number: 1}}
	if one.value >= 0 {
		e.Values = append(e.Values, event.DataPoint{DataPointID: 2, Label: "T", Number: one.value})
	}
	return &nats.Msg{Subject: d.sensors[one.sensor].DecodedSubject(), Data: e.AppendJSON(nil)}
}

// wanted is what the reference finds, by alarm.
func (d *drawn) wanted() map[string][]begun {
	all := map[string][]begun{}
	own := make([][]reading, len(d.sensors))
	for _, one := range d.readings {
		own[one.sensor] = append(own[one.sensor], one)
	}
	for i, l := range d.limits {
		for k, s := range d.sensors {
			if !l.selects(s) {
				continue
			}
			source := alert.Identity{Rule: fmt.Sprintf("rule-%d", i), MAC: string(s.MAC), Mode: string(s.Mode), Connector: 1, Component: fmt.Sprintf("sensor-%d", k%4+1)}
			if found := reference(l, own[k]); len(found) > 0 {
				all[source.ID()] = found
			}
		}
	}
	return all
}

// raised is what ALARM has.
func raised(entries []alert.Entry) map[string][]begun {
	all := map[string][]begun{}
	for i := range entries {
		e := &entries[i]
		switch id := e.ID(); e.Status {
		case alert.Raised:
			all[id] = append(all[id], begun{raised: e.RaisedAt})
		case alert.Cleared:
			all[id][len(all[id])-1].cleared = e.ClearedAt
		}
	}
	return all
}

func (r *rig) store(all []*nats.Msg) {
	r.tb.Helper()
	for _, m := range all {
		m.Header = nats.Header{}
	}
	_, err := r.operator.Store(r.tb.Context(), stream.Decoded, all)
	require.NoError(r.tb, err)
}

func count(all map[string][]begun) (n int) {
	for _, one := range all {
		n += len(one)
	}
	return n
}

// Every alarm that the reference finds is raised once: with a service that is killed again and
// again, with messages that are delivered again, and with two services at once.
func TestLikeTheReference(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			d := draw(seed, 12, 12, 3000, 40)
			want := d.wanted()
			require.Greater(t, count(want), 200)
			r := newRig(t, d.yaml())
			random := rand.New(rand.NewPCG(seed, 2))
			var all []*nats.Msg
			for _, one := range d.readings {
				all = append(all, d.message(r, one))
			}
			r.store(all)
			for kills := range 6 {
				_, stop := r.start()
				time.Sleep(time.Duration(100+random.IntN(400)) * time.Millisecond) // anywhere in its work
				stop()
				if kills%2 == 1 { // all of it again
					_, err := r.operator.JetStream().ResetConsumerToSequence(t.Context(), stream.Decoded, serviceName, 1)
					require.NoError(t, err)
				}
			}
			r.start()
			r.settled()
			require.EventuallyWithT(t, func(c *assert.CollectT) { // the timers, too
				assert.Equal(c, count(want), count(raised(r.entries())))
			}, patience, 100*time.Millisecond)
			assert.Equal(t, want, raised(r.entries()))
			t.Logf("%d alarms of %d rules and %d readings", count(want), len(d.limits), len(d.readings))
		})
	}
}

// Two services that have seen the same message both raise its alarm: once. The control states
// no entry that its change follows, and raises it twice.
func TestTwoEvaluators(t *testing.T) {
	t.Parallel()
	r := newRig(t, heldOpen)
	rules, err := ParseRules([]byte(heldOpen))
	require.NoError(t, err)
	both := func(expect bool, sequence uint64) int {
		start := tenOClock
		target := door
		target.Connector = int(sequence)
		m := r.state(target, start, true)
		for range 2 {
			streams := streamtest.Connect(t, r.server, natsserver.Alarm)
			s := newStore(streams, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
			if !expect {
				s.publish = func(ctx context.Context, e *alert.Entry, _ uint64) (uint64, error) {
					ack, err := streams.JetStream().Publish(ctx, e.Subject(), encode(t, e))
					if err != nil {
						return 0, err
					}
					return ack.Sequence, nil
				}
			}
			changes := map[string][]rewrite{}
			newEvaluator(rules.Rules, s, s.metrics).see(received{m: m}, changes)
			require.NoError(t, s.apply(t.Context(), changes))
		}
		n := 0
		for _, e := range r.entries() {
			if e.Connector == target.Connector {
				n++
			}
		}
		return n
	}
	assert.Equal(t, 1, both(true, 1))
	assert.Equal(t, 2, both(false, 2), "the control")
}

func encode(t *testing.T, e *alert.Entry) []byte {
	t.Helper()
	data, err := json.Marshal(e)
	require.NoError(t, err)
	return data
}
