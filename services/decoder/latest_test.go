package decoder

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// board is a decoder's LATEST on a real server.
type board struct {
	d        *Decoder
	js       jetstream.JetStream // the operator's
	sequence uint64              // of RAW
}

func newBoard(t *testing.T) *board {
	t.Helper()
	server, log := natsservertest.Start(t, natsservertest.Config(t)), slog.New(slog.DiscardHandler)
	client := func(user string) *stream.Client {
		nc, err := stream.Connect(stream.Config{InProcess: server.InProcess()}, user, secrettest.Credential(user, natsservertest.Password(user)), log)
		require.NoError(t, err)
		t.Cleanup(func() { natsservertest.Close(nc) })
		require.NoError(t, stream.WaitConnected(t.Context(), nc))
		c, err := stream.NewClient(nc, natsfiles.Files, log)
		require.NoError(t, err)
		return c
	}
	operator, own := client(natsserver.Operator), client(natsserver.Decoder)
	_, err := operator.SetUp(t.Context(), stream.Sizes{}, false)
	require.NoError(t, err)
	b := &board{js: operator.JetStream()}
	b.d = &Decoder{streams: own, settings: *asConfigured(), metrics: newTestCache(t, &source{}).metrics, parking: newParking()}
	b.restart(t)
	return b
}

// restart drops what is in memory, like a new process.
func (b *board) restart(t *testing.T) {
	t.Helper()
	var err error
	b.d.latest, err = newLatest(b.d.streams.JetStream(), 100)
	require.NoError(t, err)
}

// report is a message of a door, or of another component of the controller.
type report struct {
	root, place    string
	received, time time.Duration // after midnight; without time the receive time counts
	state          string
	body           string // in place of all that
	sequence       uint64 // of RAW; 0: the next
}

const door = "access-control-mode.3.door-sensors"

func (b *board) batch(t *testing.T, reports ...report) {
	t.Helper()
	midnight := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	var results []result
	var own worker
	for _, r := range reports {
		if r.root == "" {
			r.root = "tele"
		}
		if r.place == "" {
			r.place = door
		}
		if r.sequence == 0 {
			b.sequence++
			r.sequence = b.sequence
		}
		if r.time == 0 {
			r.time = r.received
		}
		body := fmt.Sprintf(`{"timestamp":%q,"door-sensor-1":%s}`, midnight.Add(r.time).Format(time.RFC3339), r.state)
		if r.body != "" {
			body = r.body
		}
		m, letter := take("f2.raw."+r.root+"."+string(mac)+"."+r.place, nats.Header{}, []byte(body), event.PlaceID(1, r.sequence), midnight.Add(r.received))
		require.Nil(t, letter)
		out := result{id: m.id}
		b.d.decodeMessage(&m, newController(environment...), &own, &out)
		results = append(results, out)
	}
	require.NoError(t, b.d.storeLatest(t.Context(), results))
}

func (b *board) states(t *testing.T) map[string]string {
	t.Helper()
	bucket, err := b.js.KeyValue(t.Context(), "LATEST")
	require.NoError(t, err)
	all := map[string]string{}
	watcher, err := bucket.WatchAll(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, watcher.Stop()) }()
	for entry := range watcher.Updates() {
		if entry == nil {
			return all
		}
		var d event.Decoded
		require.NoError(t, event.ParseDecoded(decodedPrefix+entry.Key(), entry.Value(), &d))
		all[entry.Key()[len(mac)+1:]] = string(d.State)
	}
	return all
}

// seventyYears is 2096-11-11 in the timestamp of a report.
const seventyYears = 70 * 365 * 24 * time.Hour

const (
	open   = `true`
	closed = `false`
)

func (b *board) requireDoor(t *testing.T, want, why string) {
	t.Helper()
	require.JSONEq(t, `{"door-sensor-1":`+want+`}`, b.states(t)[door], why)
}

func TestLatestIsTheLastState(t *testing.T) {
	t.Parallel()
	const at = time.Hour
	twice := func(test func(t *testing.T, b *board, restart func())) {
		for _, restarts := range []bool{false, true} {
			t.Run(fmt.Sprintf("restarts=%t", restarts), func(t *testing.T) {
				t.Parallel()
				b := newBoard(t)
				test(t, b, func() {
					if restarts {
						b.restart(t)
					}
				})
			})
		}
	}
	twice(func(t *testing.T, b *board, restart func()) { //nolint:thelper // the test itself
		b.batch(t, report{received: 2 * at, state: closed})
		b.requireDoor(t, closed, "the control: it follows")
		b.batch(t, report{received: 3 * at, state: open})
		b.requireDoor(t, open, "the control: it follows")
		restart()
		b.batch(t, report{received: 4 * at, time: 2 * at, state: closed})
		b.requireDoor(t, open, "what is late or was retained does not set it back")
		restart()
		b.batch(t, report{received: 4 * at, time: 2 * at, state: closed, sequence: 1})
		b.requireDoor(t, open, "nor does what is delivered again")

		// Within one second, with one timestamp, in one batch and in several.
		b.batch(t, report{received: 5 * at, state: closed}, report{received: 5 * at, state: open}, report{received: 5 * at, state: closed})
		b.requireDoor(t, closed, "of equal times the later place in RAW wins")
		restart()
		b.batch(t, report{received: 5 * at, state: open})
		b.requireDoor(t, open, "in the next batch, too")
		restart()
		b.batch(t, report{received: 5 * at, state: closed, sequence: b.sequence - 1})
		b.requireDoor(t, open, "and an earlier place does not")

		// A clock that is ahead: by seventy years, and by an hour, which decode believes.
		b.batch(t, report{received: 6 * at, time: seventyYears, state: closed})
		b.requireDoor(t, closed, "it is a state all the same")
		restart()
		b.batch(t, report{received: 6*at + time.Second, state: open})
		b.requireDoor(t, open, "it freezes nothing")
		b.batch(t, report{received: 7 * at, time: 8 * at, state: closed})
		b.requireDoor(t, closed, "an hour ahead")
		restart()
		b.batch(t, report{received: 7*at + time.Minute, state: open})
		b.requireDoor(t, closed, "the control: it counts as five minutes ahead")
		b.batch(t, report{received: 7*at + 6*time.Minute, state: open})
		b.requireDoor(t, open, "and no longer")
	})
}

func TestLatestHasStatesAlone(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.batch(t,
		report{root: "cmnd", place: "access-control-mode.3.strike-1", body: `{"power-flag":1,"period":5}`},
		report{root: "cmnd", place: "alarm-mode.4.siren-1", body: "1"},
		report{place: "sensor-mode.1.sensor-4", body: frameBody(contract)}, // no such pin
		report{place: "sensor-mode.9.sensor-1", body: frameBody(contract)}, // no such connector
	)
	assert.Empty(t, b.states(t))
	b.batch(t,
		report{root: "stat", place: "access-control-mode.3.strike-1", body: `{"status":true}`},
		report{root: "tele", place: "alarm-mode.4.siren-1", body: `{"status":true}`},
	)
	assert.Len(t, b.states(t), 2, "the control")
	b.batch(t, report{root: "cmnd", place: "sensor-mode.1.sensor-1", body: frameBody(contract)})
	assert.Contains(t, b.states(t), "sensor-mode.1.sensor-1", "readings of older firmware are telemetry")
}

// TestLatestIsBounded: a controller reports components that do not exist.
func TestLatestIsBounded(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.batch(t, report{received: time.Hour, state: open})
	for connector := range 4 {
		var reports []report
		for n := range 100 {
			place := fmt.Sprintf("access-control-mode.%d.door-sensors", 4+(connector*100+n)%96)
			if mode := (connector*100 + n) / 96; mode > 0 {
				place = fmt.Sprintf("%s.%d.door-sensors", []string{"", "alarm-mode", "sensor-mode", "sensor-mode", "sensor-mode"}[mode], (connector*100+n)%96)
			}
			reports = append(reports, report{received: 2 * time.Hour, place: place, state: open})
		}
		b.batch(t, reports...)
		b.restart(t)
	}
	assert.Len(t, b.states(t), maxComponents)
	assert.Positive(t, testutil.ToFloat64(b.d.metrics.tooMany))
	b.batch(t, report{received: 3 * time.Hour, state: closed})
	b.requireDoor(t, closed, "the control: what is there is followed")
}

func TestLatestHeaders(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.batch(t, report{received: time.Hour, state: open}, report{received: time.Hour, state: open, place: "access-control-mode.4.door-sensors", time: seventyYears})
	s, err := b.js.Stream(t.Context(), stream.Latest)
	require.NoError(t, err)
	m, err := s.GetLastMsgForSubject(t.Context(), latestPrefix+string(mac)+"."+door)
	require.NoError(t, err)
	assert.Equal(t, "2026-11-29T01:00:00Z", m.Header.Get(event.HeaderReceived))
	assert.Empty(t, m.Header.Get(event.HeaderDeviceTime))
	m, err = s.GetLastMsgForSubject(t.Context(), latestPrefix+string(mac)+".access-control-mode.4.door-sensors")
	require.NoError(t, err)
	assert.Equal(t, "2096-11-11T00:00:00Z", m.Header.Get(event.HeaderDeviceTime))
}

// TestLatestOfManyControllers reads the states of controllers together that have more components
// than the server returns at once, and those of one that has more by itself.
func TestLatestOfManyControllers(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	midnight := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	many := map[topic.MAC]int{"02f200000001": 5, "02f200000002": 900, "02f200000003": 0, "02f200000004": 700, "02f200000005": 1500}
	var messages []*nats.Msg
	for mac, components := range many {
		for n := range components {
			place := fmt.Sprintf("sensor-mode.%d.sensor-%d", n/90+1, n%90+1)
			d := event.Decoded{ID: event.PlaceID(1, uint64(n+1)), Time: midnight.Add(time.Duration(n) * time.Second), Received: midnight}
			messages = append(messages, &nats.Msg{Subject: latestPrefix + string(mac) + "." + place, Header: nats.Header{}, Data: d.AppendJSON(nil)})
		}
	}
	for batch := range slices.Chunk(messages, 500) {
		_, err := b.d.streams.Store(t.Context(), stream.Latest, batch)
		require.NoError(t, err)
	}
	macs := slices.Sorted(maps.Keys(many))
	_, err := b.d.latest.readLast(t.Context(), macs)
	require.Error(t, err, "the control: the server does not return so many at once")
	var results []result
	for _, mac := range macs {
		results = append(results, result{state: state{mac: mac}})
	}
	held, err := b.d.latest.all(t.Context(), results)
	require.NoError(t, err)
	for mac, components := range many {
		assert.Len(t, held[mac], components, mac)
		alone, err := b.d.latest.readOnce(t.Context(), mac)
		require.NoError(t, err)
		assert.Equal(t, alone, held[mac], mac)
	}
}

// TestLatestForgetsSilentControllers: the memory is limited, and silent controllers are dropped
// first.
func TestLatestForgetsSilentControllers(t *testing.T) {
	t.Parallel()
	l, err := newLatest(nil, 2)
	require.NoError(t, err)
	for i, n := range []int{3, 5, 7} {
		of := map[component]moment{}
		for j := range n {
			of[component{connector: j}] = moment{}
		}
		l.held += n
		l.known.Add([]topic.MAC{"02f200000001", "02f200000002", "02f200000003"}[i], of)
	}
	assert.Equal(t, 12, l.held)
}
