package alarm

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
)

const heldOpen = `
rules:
  - name: open
    component: door-sensors
    severity: critical
    summary: The door is open
    when: on
`

func TestLife(t *testing.T) {
	t.Parallel()
	r := newRig(t, heldOpen)
	s, stop := r.start()
	now := time.Now().UTC()
	r.publish(r.state(door, now, true), r.state(door, now.Add(time.Second), true))
	r.become(alert.Raised)
	require.Eventually(t, func() bool { return testutil.ToFloat64(s.metrics.raised.WithLabelValues("critical")) == 1 }, patience, 20*time.Millisecond)
	e := r.entries()[0]
	assert.Equal(t, "open", e.Rule)
	assert.Equal(t, alert.Critical, e.Severity)
	assert.Equal(t, "door-sensor-1 is on", e.Detail)
	assert.Equal(t, now, e.RaisedAt)

	_, err := r.change(alert.ChangeRequest{ID: e.ID(), Action: alert.Acknowledge, Person: "ann", Comment: "on my way"})
	require.NoError(t, err)
	r.publish(r.state(door, now.Add(2*time.Second), false)) // what evaluates has not heard of ann
	r.become(alert.Raised, alert.Raised, alert.Cleared)
	last := r.entries()[2]
	assert.Equal(t, "ann", last.Acknowledged.By)
	assert.Equal(t, now.Add(2*time.Second), last.ClearedAt)
	stop()

	_, err = r.operator.JetStream().ResetConsumerToSequence(t.Context(), "DECODED", "alarm", 1)
	require.NoError(t, err)
	_, _ = r.start()
	r.settled()
	r.publish(r.state(door, now.Add(3*time.Second), true))
	r.become(alert.Raised, alert.Raised, alert.Cleared, alert.Raised)
}

// A message may not come: then the time raises the alarm. What was pending when the service
// stopped is still pending when it starts.
func TestForWithSilence(t *testing.T) {
	t.Parallel()
	r := newRig(t, heldOpen+"    for: 3s\n")
	_, stop := r.start()
	now := time.Now().UTC()
	r.publish(r.state(door, now, true))
	r.become(alert.Pending)
	stop()
	r.start()
	r.become(alert.Pending, alert.Raised)
	assert.Equal(t, now.Add(3*time.Second), r.entries()[1].RaisedAt)
}

func TestAbsence(t *testing.T) {
	t.Parallel()
	r := newRig(t, "rules: [{name: silent, component: door-sensors, absent: 2s}]")
	r.start()
	now := time.Now().UTC()
	r.publish(r.state(door, now, true))
	r.become(alert.Raised)
	assert.Equal(t, now.Add(2*time.Second), r.entries()[0].RaisedAt)
	r.publish(r.state(door, now.Add(10*time.Minute), true))
	r.become(alert.Raised, alert.Cleared)
}

// Rules change while the service runs. An invalid file changes nothing, and an alarm says so.
func TestRulesChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, heldOpen)
	s, _ := r.start()
	r.publish(r.state(door, time.Now().UTC(), true))
	r.become(alert.Raised)
	r.write("rules: [{name: open, when: onn}]")
	require.Eventually(t, func() bool { return s.Alarms().Total == 1 }, patience, 20*time.Millisecond)
	assert.Contains(t, s.Alarms().Alarms[0].Detail, "line 1: rule \"open\": when: \"onn\": unknown name onn")
	r.write("rules: [{name: other, when: on}]")
	r.become(alert.Raised, alert.Cleared)
	require.Eventually(t, func() bool { return s.Alarms().Total == 0 }, patience, 20*time.Millisecond)
	r.publish(r.state(door, time.Now().UTC(), true))
	r.become(alert.Raised, alert.Cleared, alert.Raised)
}

// Of two services one evaluates. When it dies the other goes on, and knows what was raised.
func TestStandby(t *testing.T) {
	t.Parallel()
	r := newRig(t, heldOpen)
	var stops []func()
	for range 2 {
		_, stop := r.start()
		stops = append(stops, stop)
	}
	now := time.Now().UTC()
	r.publish(r.state(door, now, true))
	r.become(alert.Raised)
	stops[0]()
	r.publish(r.state(door, now.Add(time.Second), false))
	r.become(alert.Raised, alert.Cleared)
	r.start()
	stops[1]()
	r.publish(r.state(door, now.Add(2*time.Second), true))
	r.become(alert.Raised, alert.Cleared, alert.Raised)
}
