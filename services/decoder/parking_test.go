package decoder

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// TestParking goes through all steps of waiting and leaving. None of the controller's messages
// may be on its way to PARKED when newer ones flow again.
func TestParking(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := newParking()
	taken := func(after time.Duration) topic.MAC {
		mac, _ := p.take(now.Add(after))
		return mac
	}
	require.False(t, p.joins(mac), "the control: nobody waits")
	p.add(mac)
	require.True(t, p.joins(mac))
	assert.Empty(t, taken(time.Hour), "its first batch is on its way")
	p.keep(mac, 2)
	require.Equal(t, mac, taken(0))
	assert.Empty(t, taken(time.Hour), "it is at work")

	mark, settled := p.mark(mac)
	require.True(t, settled)
	require.True(t, p.joins(mac), "newer ones are parked behind it")
	assert.False(t, p.leave(mac, mark), "one more was parked since")
	_, settled = p.mark(mac)
	assert.False(t, settled, "it is not stored yet")
	p.keep(mac, 1)
	mark, settled = p.mark(mac)
	assert.True(t, settled)
	require.True(t, p.leave(mac, mark))
	assert.False(t, p.joins(mac))
	assert.Zero(t, p.len())

	// Pauses double, and what changes the metadata ends them.
	p.found(mac)
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		require.Equal(t, mac, taken(0))
		p.postpone(mac, now, 0)
		assert.Empty(t, taken(pause*time.Second-1))
		require.Equal(t, mac, taken(pause*time.Second))
		p.postpone(mac, now, time.Nanosecond)
		now = now.Add(time.Second)
		w := p.place(mac)
		w.due = now
	}
	require.Equal(t, mac, taken(0))
	p.postpone(mac, now, time.Hour)
	p.wake("02f200000001")
	assert.Empty(t, taken(0), "the change is another controller's")
	p.wake(mac)
	require.Equal(t, mac, taken(0))
	p.wake("")
	p.postpone(mac, now, time.Hour)
	assert.Equal(t, mac, taken(time.Second), "it changed while it was at work")
}

// TestNewerMessagesWait: while older messages of a controller are parked, newer ones do not
// overtake them, even if its metadata can be read again.
func TestNewerMessagesWait(t *testing.T) {
	t.Parallel()
	d := &Decoder{cache: newTestCache(t, &source{controller: newController(environment...)}), parking: newParking(), settings: *asConfigured()}
	raw := &rawMessage{subject: "f2.raw.tele." + string(mac) + ".sensor-mode.1.sensor-1", body: frameBody(contract)}
	for _, waits := range []bool{false, true} {
		if waits {
			d.parking.found(mac)
		}
		w := &work{messages: []jetstream.Msg{raw}, results: make([]result, 1)}
		require.NoError(t, d.decodeOne(t.Context(), t.Context(), w, &worker{mine: []int{0}}, 0))
		assert.Equal(t, waits, w.results[0].parked != nil)
		assert.Equal(t, waits, w.results[0].decoded == nil)
	}
}
