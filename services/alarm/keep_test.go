package alarm

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// An alarm that stays raised for longer than ALARM keeps its messages is not forgotten, and nobody is
// notified twice. The control is an alarm that nobody needs any more: it is dropped, and so it is raised again
// when its messages are delivered again.
func TestKept(t *testing.T) {
	t.Parallel()
	hook := newHook(t)
	r := newRig(t, heldOpen+fmt.Sprintf("receivers: [{name: one, webhook: {url: %q}}]\n", hook.URL))
	const maxAge = 6 * time.Second
	info, err := stream.Find(t.Context(), r.operator.JetStream(), stream.Alarm)
	require.NoError(t, err)
	info.Config.MaxAge, info.Config.Duplicates = maxAge, time.Second
	_, err = r.operator.JetStream().UpdateStream(t.Context(), info.Config)
	require.NoError(t, err)
	_, stop := r.start()
	other := door
	other.Connector = 4
	now := time.Now().UTC()
	r.publish(r.state(door, now, true), r.state(other, now, true))
	r.become(alert.Raised, alert.Raised)
	r.publish(r.state(other, now.Add(time.Second), false))
	r.become(alert.Raised, alert.Raised, alert.Cleared)
	seen := r.entries()[2]
	_, err = r.change(alert.ChangeRequest{ID: seen.ID(), Action: alert.Acknowledge, Person: "ann"})
	require.NoError(t, err)

	of := func(connector int) (all []alert.Entry) {
		for _, e := range r.entries() {
			if e.Connector == connector {
				all = append(all, e)
			}
		}
		return all
	}
	require.Eventually(t, func() bool { return len(of(4)) == 0 }, patience, 100*time.Millisecond, "the control is dropped")
	time.Sleep(maxAge)
	first := of(3)
	require.NotEmpty(t, first)
	assert.Equal(t, now, first[0].RaisedAt)
	stop()
	_, err = r.operator.JetStream().ResetConsumerToSequence(t.Context(), stream.Decoded, serviceName, 1)
	require.NoError(t, err)
	_, _ = r.start()
	r.settled()
	for _, e := range of(3) {
		assert.Equal(t, first[0], e, "the same alarm, though its messages came again")
	}
	r.publish(r.state(door, now.Add(2*time.Second), false))
	require.Eventually(t, func() bool { return len(hook.received()) >= 6 }, patience, 20*time.Millisecond)
	time.Sleep(keepAtLeast)
	count := map[string]int{}
	for _, body := range hook.received() {
		labels := body["alerts"].([]any)[0].(map[string]any)["labels"].(map[string]any)
		count[fmt.Sprint(labels["connector"], " ", body["status"])]++
	}
	assert.Equal(t, map[string]int{"3 firing": 1, "3 resolved": 1, "4 firing": 2, "4 resolved": 2}, count,
		"once for the alarm that was kept; the control, which was forgotten, came again with its messages")
}

// What ALARM is about to drop because of its size is stored again, too.
func TestOldest(t *testing.T) {
	t.Parallel()
	info := func(bytes uint64) *jetstream.StreamInfo {
		return &jetstream.StreamInfo{
			Config: jetstream.StreamConfig{MaxAge: time.Hour, MaxBytes: 1000},
			State:  jetstream.StreamState{Bytes: bytes, FirstSeq: 100, LastSeq: 200},
		}
	}
	at := func(seq uint64, age time.Duration) *instance {
		return &instance{seq: seq, stored: time.Now().Add(-age)}
	}
	assert.False(t, oldest(info(400), at(100, time.Minute)), "there is room")
	assert.True(t, oldest(info(600), at(149, time.Minute)), "the older half of a stream that fills")
	assert.False(t, oldest(info(600), at(151, time.Minute)))
	assert.True(t, oldest(info(400), at(199, 31*time.Minute)), "half of the age")
	unlimited := &jetstream.StreamInfo{State: jetstream.StreamState{Bytes: 1 << 40, LastSeq: 200}}
	assert.False(t, oldest(unlimited, at(1, 100*time.Hour)))
}
