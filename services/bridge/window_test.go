package bridge

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// model is a broker with one session and a bridge with RAW. Like Mosquitto, the broker gives a
// message its identifier when it queues the message, and sends messages in flight again in
// order with DUP, even those that never reached the bridge.
type model struct {
	inflight int
	id       uint16
	queue    []modelMessage // oldest first, the first handed of them in flight
	handed   int
	raw      []modelMessage // that is stored, in order
	marked   int
	window   *window
	judge    func(*model, message) verdict
}

type modelMessage struct {
	number, content int
	id              uint16
	dup             bool
}

func newModel(inflight int, start uint16, judge func(*model, message) verdict) *model {
	return &model{inflight: inflight, id: start, window: newWindow(inflight), judge: judge}
}

// judges decide about messages: the window, and wrong ones that the test must detect.
func byWindow(m *model, x message) verdict { return m.window.judge(x) }

func (w *window) judge(x message) verdict {
	v, _ := w.take(x)
	return v
}

func byDigestAlone(m *model, x message) verdict {
	for _, stored := range m.raw[max(0, len(m.raw)-m.inflight):] {
		if x.dup && m.window.digest("", []byte{byte(stored.content)}) == x.digest {
			return copied
		}
	}
	return first
}

func withoutDUP(m *model, x message) verdict {
	x.dup = false
	return m.window.judge(x)
}

func byDUPAlone(_ *model, x message) verdict {
	if x.dup {
		return copied
	}
	return first
}

func (m *model) publish(number, content int) {
	m.id = m.id%packetIDs + 1
	m.queue = append(m.queue, modelMessage{number: number, content: content, id: m.id})
}

// receive delivers up to n messages. The bridge stores them and acknowledges acked of them.
func (m *model) receive(n, acked int) {
	n = min(n, len(m.queue), m.inflight)
	for i := m.handed; i < n; i++ {
		x := &m.queue[i]
		v := m.judge(m, message{id: x.id, dup: x.dup, digest: m.window.digest("", []byte{byte(x.content)}), event: true, at: moment})
		if v == repeat {
			m.marked++
		}
		if v != copied {
			m.raw = append(m.raw, *x)
		}
	}
	m.handed = max(m.handed, n)
	acked = min(acked, m.handed)
	m.queue, m.handed = m.queue[acked:], m.handed-acked
}

// reconnect sends everything again. lost messages had not reached the bridge before.
func (m *model) reconnect(lost int) {
	for i := range min(len(m.queue), m.handed+lost, m.inflight) {
		m.queue[i].dup = true
	}
	m.handed = 0
}

// restart starts a new bridge process.
func (m *model) restart(lost int) {
	m.window = newWindow(m.inflight)
	for _, x := range m.raw[max(0, len(m.raw)-m.inflight):] {
		m.window.take(message{id: x.id, digest: m.window.digest("", []byte{byte(x.content)}), event: true, at: moment})
	}
	m.reconnect(lost)
}

// check returns how many messages are missing on RAW, and how many are there twice.
func (m *model) check(published int) (missing, twice int) {
	times := map[int]int{}
	for _, x := range m.raw {
		times[x.number]++
	}
	for number := range published {
		if times[number] == 0 {
			missing++
		}
		twice += max(0, times[number]-1)
	}
	return missing, twice
}

// schedule draws the steps of a model, and delivers everything at the end.
func schedule(t *rapid.T, judge func(*model, message) verdict) (m *model, published int) {
	inflight := rapid.IntRange(1, 8).Draw(t, "inflight")
	start := rapid.SampledFrom([]uint16{0, 17, packetIDs - 5, packetIDs}).Draw(t, "last identifier")
	m = newModel(inflight, start, judge)
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		count := rapid.IntRange(0, 10)
		switch rapid.IntRange(0, 5).Draw(t, "step") {
		case 0, 1, 2:
			m.publish(published, rapid.IntRange(0, 1).Draw(t, "content"))
			published++
		case 3:
			m.receive(count.Draw(t, "received"), count.Draw(t, "acknowledged"))
		case 4:
			m.reconnect(count.Draw(t, "lost"))
		case 5:
			m.restart(count.Draw(t, "lost"))
		}
	}
	for len(m.queue) > 0 {
		m.receive(m.inflight, m.inflight)
	}
	return m, published
}

// TestWindow: no event is missing or stored twice, whenever the connection is lost or the
// bridge dies. Events have only two different bodies.
func TestWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m, published := schedule(t, byWindow)
		missing, twice := m.check(published)
		require.Zero(t, missing)
		require.Zero(t, twice)
		for i := 1; i < len(m.raw); i++ {
			require.Less(t, m.raw[i-1].number, m.raw[i].number, "the order")
		}
	})
}

// TestWindowControls: the schedules detect plausible but wrong judges.
func TestWindowControls(t *testing.T) {
	t.Parallel()
	for name, control := range map[string]struct {
		judge        func(*model, message) verdict
		loses, twice bool
	}{
		"equal bytes alone": {byDigestAlone, true, false},
		"DUP ignored":       {withoutDUP, false, true},
		"DUP alone":         {byDUPAlone, true, false},
	} {
		var missing, twice int
		rapid.Check(t, func(t *rapid.T) {
			m, published := schedule(t, control.judge)
			lost, doubled := m.check(published)
			missing, twice = missing+lost, twice+doubled
		})
		assert.Equal(t, control.loses, missing > 0, name)
		assert.Equal(t, control.twice, twice > 0, name)
	}
}

// TestWindowDoor: the second open was delivered and not stored. It comes again with DUP and is
// a new event.
func TestWindowDoor(t *testing.T) {
	t.Parallel()
	m := newModel(8, 0, byWindow)
	for number, content := range []int{1, 0, 1} {
		m.publish(number, content)
	}
	m.receive(2, 0)
	m.restart(1)
	require.True(t, m.queue[2].dup, "the control")
	m.receive(3, 3)
	missing, twice := m.check(3)
	assert.Zero(t, missing)
	assert.Zero(t, twice)
	assert.Equal(t, 1, m.marked, "it may be a repeat of the first")
}

// TestWindowAfterACrashOfTheBroker: identifiers continue from the broker's last save.
func TestWindowAfterACrashOfTheBroker(t *testing.T) {
	t.Parallel()
	w := newWindow(8)
	take := func(id uint16, content string, dup bool) verdict {
		return w.judge(message{id: id, dup: dup, digest: w.digest("", []byte(content)), event: true, at: moment})
	}
	for id := uint16(1); id <= 20; id++ {
		require.Equal(t, first, take(id, fmt.Sprint(id), false))
	}
	assert.Equal(t, copied, take(15, "15", true), "in flight at the save")
	assert.Equal(t, repeat, take(16, "16", false), "only queued at the save")
	assert.Equal(t, first, take(17, "new", false), "its identifier was used before")
	assert.Equal(t, copied, take(17, "new", true))
	assert.Equal(t, repeat, take(18, "18", true), "an identifier behind those taken: equal bytes are not the same message")
}

// TestReadingsAfterACrashOfTheBroker: what was only queued at the broker's last save comes again
// without DUP. A reading that comes again has the time of the first, so that both are one row.
func TestReadingsAfterACrashOfTheBroker(t *testing.T) {
	t.Parallel()
	w := newWindow(8)
	clock := moment
	take := func(id uint16, content string, dup bool) (verdict, time.Duration) {
		clock = clock.Add(time.Second)
		v, at := w.take(message{id: id, dup: dup, digest: w.digest("", []byte(content)), at: clock})
		return v, clock.Sub(at)
	}
	begin := uint16(packetIDs - 10) // the identifiers begin again on the way
	id := func(n int) uint16 { return uint16((int(begin)+n-1)%packetIDs + 1) }
	for n := range 20 {
		v, late := take(id(n), "21.5", false)
		require.Equal(t, first, v)
		require.Zero(t, late)
	}
	v, _ := take(id(14), "21.5", true)
	assert.Equal(t, copied, v, "in flight at the save")
	for n := 15; n < 18; n++ {
		v, late := take(id(n), "21.5", false)
		assert.Equal(t, repeat, v, n)
		assert.Equal(t, 6*time.Second, late, n)
	}
	v, late := take(id(18), "22.0", false)
	assert.Equal(t, first, v, "18 was lost, and its identifier is another message's")
	assert.Zero(t, late)
	v, late = take(id(19), "21.5", false)
	assert.Equal(t, first, v, "and so it is from then on")
	assert.Zero(t, late)
	v, _ = take(id(19), "21.5", true)
	assert.Equal(t, copied, v)
}

func TestWindowOfQoS0AndRetained(t *testing.T) {
	t.Parallel()
	w := newWindow(8)
	digest := w.digest("", []byte("x"))
	for range 2 {
		assert.Equal(t, first, w.judge(message{digest: digest, at: moment}))
	}
	w.pass(0, false)
	assert.Zero(t, w.last)
	w.pass(4, false)
	assert.Equal(t, first, w.judge(message{id: 5, digest: digest, at: moment}))
	w.pass(4, true) // after a reconnect
	assert.Equal(t, copied, w.judge(message{id: 5, dup: true, digest: digest, at: moment}))

	// A letter of an earlier process comes before what RAW has.
	assert.Equal(t, first, w.judge(message{id: 3, dup: true, letter: true, digest: digest, at: moment}))
	assert.Equal(t, copied, w.judge(message{id: 5, dup: true, digest: digest, at: moment}))
}

// TestRepeats: an event with the same bytes as an earlier one is marked for some minutes; a
// reading never is.
func TestRepeats(t *testing.T) {
	t.Parallel()
	w := newWindow(8)
	id := uint16(0)
	take := func(content string, event bool, after time.Duration) verdict {
		id++
		return w.judge(message{id: id, digest: w.digest("", []byte(content)), event: event, at: moment.Add(after)})
	}
	assert.Equal(t, first, take("open", true, 0))
	assert.Equal(t, first, take("closed", true, time.Second))
	assert.Equal(t, repeat, take("open", true, 2*time.Second))
	assert.Equal(t, repeat, take("open", true, repeatWithin+time.Second), "counted from the last")
	assert.Equal(t, first, take("open", true, 3*repeatWithin))
	assert.Equal(t, first, take("21.5", false, 0))
	assert.Equal(t, first, take("21.5", false, 0))
	for i := range maxRecent + 10 {
		take(fmt.Sprint(i), true, 4*repeatWithin)
	}
	assert.Equal(t, maxRecent, w.recent.Len())
}

// TestWindowFarBack: after a crash the broker sends again, without DUP, what it had queued at
// a save that is more than max_inflight_messages ago.
func TestWindowFarBack(t *testing.T) {
	t.Parallel()
	const inflight = 8
	for _, start := range []uint16{1, packetIDs - 50} {
		w := newWindow(inflight)
		id := func(i int) uint16 { return uint16((int(start)-1+i)%packetIDs + 1) }
		read := func(i int, at time.Time) message {
			return message{id: id(i), digest: w.digest("", []byte{byte(i)}), at: at}
		}
		for i := range 100 {
			v, _ := w.take(read(i, moment.Add(time.Duration(i))))
			require.Equal(t, first, v)
		}
		for i := 20; i < 100; i++ {
			v, at := w.take(read(i, moment.Add(time.Minute)))
			assert.Equal(t, repeat, v, i)
			assert.Equal(t, moment.Add(time.Duration(i)), at, "the two are one row")
		}
		v, at := w.take(read(100, moment.Add(time.Minute)))
		assert.Equal(t, first, v)
		assert.Equal(t, moment.Add(time.Minute), at)
		v, _ = w.take(read(20, moment.Add(time.Hour)))
		assert.Equal(t, first, v, "a new session, and the value of an hour ago")
	}
}

// TestRecallFarBack: a bridge that starts anew knows what the broker had queued at a save that is
// more than max_inflight_messages ago.
func TestRecallFarBack(t *testing.T) {
	t.Parallel()
	const inflight, n = 8, 100
	streams := streamtest.NewClient(t)
	raw := make([]*nats.Msg, n)
	for i := range raw {
		raw[i] = &nats.Msg{
			Subject: "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", Data: []byte(strconv.Itoa(i)),
			Header: nats.Header{event.HeaderPacketID: {strconv.Itoa(i + 1)}, event.HeaderReceived: {moment.Format(time.RFC3339Nano)}},
		}
	}
	places, err := streams.NewAppender(stream.Raw, 0).Append(t.Context(), raw)
	require.NoError(t, err)
	w := newWindow(inflight)
	require.NoError(t, w.recall(t.Context(), streams, places[n-1]))
	for i := range raw {
		v, at := w.take(message{id: uint16(i + 1), digest: w.digest(raw[i].Subject, raw[i].Data), at: moment.Add(time.Minute)})
		assert.Equal(t, repeat, v, i)
		assert.Equal(t, moment, at, "the two are one row")
	}
}
