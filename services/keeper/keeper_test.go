package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"go.uber.org/goleak"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsservertest.Leftovers()...) }

const (
	patience = time.Minute
	limit    = 4 << 20
	subject  = "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1"
	batch    = 500
)

// bench is RAW and DECODED of 4 MiB, and a keeper with its own rights that does not run yet.
type bench struct {
	*testing.T
	operator jetstream.JetStream
	keeper   *Keeper
}

func newBench(t *testing.T) *bench {
	t.Helper()
	cfg := natsservertest.Config(t)
	server := natsservertest.Start(t, cfg)
	connect := func(user string) jetstream.JetStream {
		nc, err := nats.Connect(server.URL(), nats.UserInfo(user, natsservertest.Password(user)), nats.RootCAs(cfg.CAFile),
			nats.CustomInboxPrefix(natsserver.InboxPrefix(user)),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { assert.NoError(t, err) }))
		require.NoError(t, err)
		t.Cleanup(func() { natsservertest.Close(nc) })
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		return js
	}
	b := &bench{T: t, operator: connect(natsserver.Operator)}
	client, err := stream.NewClient(b.operator.Conn(), natsfiles.Files, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = client.SetUp(t.Context(), stream.Sizes{RawBytes: limit, DecodedBytes: limit}, false)
	require.NoError(t, err)
	config := Config{RawHistory: 168 * time.Hour, DecodedHistory: 72 * time.Hour, Share: 0.8, FillingWithin: 24 * time.Hour}
	b.keeper, err = New(config, connect(natsserver.Keeper), prometheus.NewRegistry(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	return b
}

// run runs the keeper until the test's end.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- b.keeper.Run(ctx) }()
	b.Cleanup(func() { cancel(); assert.NoError(b, <-done) })
}

func (b *bench) raw() *trimmed { return b.keeper.streams[0] }

// look runs one look at RAW.
func (b *bench) look() error {
	_, err := b.keeper.look(b.Context(), b.raw())
	return err
}

// state returns the state of RAW.
func (b *bench) state() jetstream.StreamState {
	b.Helper()
	s, err := b.operator.Stream(b.Context(), "RAW")
	require.NoError(b, err)
	return s.CachedInfo().State
}

// publish stores one batch of messages with 300 bytes that do not compress.
func (b *bench) publish() error {
	messages := make([]*nats.Msg, batch)
	for i := range messages {
		data := make([]byte, 300)
		for j := range data {
			data[j] = byte(rand.Uint32())
		}
		messages[i] = &nats.Msg{Subject: subject, Header: nats.Header{}, Data: data}
	}
	_, err := jetstreamext.PublishMsgBatch(b.Context(), b.operator, messages)
	return err
}

// fill publishes until the stream refuses a batch.
func (b *bench) fill() (stored int) {
	b.Helper()
	for b.publish() == nil {
		stored += batch
		require.Less(b, stored, 10*limit/300)
	}
	return stored
}

// acknowledge receives and acknowledges n messages with a consumer of RAW.
func (b *bench) acknowledge(name string, n int) {
	b.Helper()
	consumer, err := b.operator.Consumer(b.Context(), "RAW", name)
	require.NoError(b, err)
	inHand := consumer.CachedInfo().NumAckPending
	for n > 0 {
		got, err := consumer.Fetch(min(n, batch), jetstream.FetchMaxWait(patience))
		require.NoError(b, err)
		for m := range got.Messages() {
			require.NoError(b, m.Ack())
			n--
		}
		require.NoError(b, got.Error())
	}
	// The server takes acknowledgements in behind the connection's own work.
	require.Eventually(b, func() bool {
		info, err := consumer.Info(b.Context())
		return err == nil && info.NumAckPending <= inHand
	}, patience, 5*time.Millisecond)
}

// TestStreamNeverFills: RAW gets many times its size at full speed while the decoder keeps up.
// F2MESH_KEEPER_MESSAGES is the number of messages. At the end RAW is filled up to its share.
func TestStreamNeverFills(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run()
	messages := 4 * limit / 400
	if text := os.Getenv("F2MESH_KEEPER_MESSAGES"); text != "" {
		var err error
		messages, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	refused := 0
	started := time.Now()
	for n := 0; n < messages; {
		if err := b.publish(); err != nil {
			refused++ // full for a moment: a later attempt succeeds, or the test fails
			require.Less(t, refused, 1000, err)
			time.Sleep(leastPause)
			continue
		}
		b.acknowledge("decoder", batch)
		n += batch
	}
	t.Logf("%d messages in %s, %d batches refused for a moment", messages, time.Since(started), refused)
	require.Eventually(t, func() bool { return b.state().Bytes <= limit/2 }, patience, 10*time.Millisecond)
	assert.Greater(t, float64(b.state().Bytes), 0.4*limit, "as much history as fits beside a batch")
	require.NoError(t, b.keeper.Ready(t.Context()))
	assert.Empty(t, b.keeper.Alarms().Alarms)
}

// The control: without a keeper RAW becomes full although everything was consumed.
func TestWithoutKeeperStreamFills(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stored := b.fill()
	b.acknowledge("decoder", stored)
	require.Error(t, b.publish())
}

// Waiting messages are never trimmed: the stream refuses new ones, an alarm is raised before,
// and new ones are stored again when the consumer continues.
func TestBacklogStays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run()
	require.NoError(t, b.publish())
	b.acknowledge("decoder", batch)
	stored := batch
	alarmed := false
	for b.publish() == nil {
		stored += batch
		time.Sleep(growthEvery) // the keeper measures growth in real time
		alarmed = alarmed || b.keeper.Alarms().Total == 1
	}
	assert.True(t, alarmed, "before it was full")
	raised := b.keeper.Alarms().Alarms
	require.Len(t, raised, 1)
	assert.Equal(t, "RAW", raised[0].Subject)
	assert.Contains(t, raised[0].Detail, "wait for consumer decoder")
	assert.Contains(t, raised[0].Detail, "full in")
	state := b.state()
	assert.LessOrEqual(t, state.FirstSeq, uint64(batch+1))
	assert.EqualValues(t, stored, state.LastSeq)

	b.acknowledge("decoder", stored-batch)
	require.Eventually(t, func() bool { return b.publish() == nil }, patience, 10*time.Millisecond)
	b.acknowledge("decoder", batch)
	require.Eventually(t, func() bool { return b.keeper.Alarms().Total == 0 }, patience, 10*time.Millisecond)
}

// Messages stay until every durable consumer has acknowledged them, even an operator's. A
// consumer that is not durable does not count. Without its reader a stream is not trimmed.
func TestEveryDurableConsumerHoldsMessages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stored := b.fill()
	s, err := b.operator.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	_, err = s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	_, err = s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "mine", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	require.NoError(t, b.look())
	assert.EqualValues(t, 1, b.state().FirstSeq)

	b.acknowledge("decoder", stored)
	require.NoError(t, b.look())
	assert.EqualValues(t, 1, b.state().FirstSeq, "consumer mine has none of it")
	b.acknowledge("mine", 100)
	require.NoError(t, b.look())
	assert.EqualValues(t, 101, b.state().FirstSeq)
	require.NoError(t, b.operator.DeleteConsumer(t.Context(), "RAW", "mine"))

	config, err := b.operator.Consumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	require.NoError(t, b.operator.DeleteConsumer(t.Context(), "RAW", "decoder"))
	require.ErrorContains(t, b.look(), "no consumer decoder")
	assert.EqualValues(t, 101, b.state().FirstSeq)

	remade := config.CachedInfo().Config
	_, err = b.operator.CreateConsumer(t.Context(), "RAW", remade)
	require.NoError(t, err)
	require.NoError(t, b.look())
	assert.EqualValues(t, 101, b.state().FirstSeq, "a new consumer has acknowledged nothing")
	b.acknowledge("decoder", stored-100)
	_, err = b.operator.ResetConsumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	require.NoError(t, b.look())
	assert.InDelta(t, 0.45*limit, float64(b.state().Bytes), 0.01*limit)
}

// A consumer without pending messages of its filter holds no messages.
func TestFilteredConsumer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s, err := b.operator.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	_, err = s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "other", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "f2.raw.stat.>"})
	require.NoError(t, err)
	b.acknowledge("decoder", b.fill())
	require.NoError(t, b.look())
	require.EqualValues(t, 1, b.state().FirstSeq, "what has just arrived may be for it, and not be counted yet")
	require.NoError(t, b.look())
	assert.Greater(t, b.state().FirstSeq, uint64(1))
}

// A redelivery does not lower the sequence up to which all messages are acknowledged.
func TestInHandStays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stored := b.fill()
	consumer, err := b.operator.Consumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	held, err := consumer.Fetch(1, jetstream.FetchMaxWait(patience))
	require.NoError(t, err)
	first := <-held.Messages()
	b.acknowledge("decoder", stored-1)
	require.NoError(t, b.look())
	assert.EqualValues(t, 1, b.state().FirstSeq, "the first message is in flight")
	require.NoError(t, first.DoubleAck(t.Context()))
	require.NoError(t, b.look())
	assert.Greater(t, b.state().FirstSeq, uint64(1))
}

func TestTrimsByAge(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old, young := b.raw().history, time.Now()
	for range 4 {
		require.NoError(t, b.publish())
	}
	b.acknowledge("decoder", 4*batch)
	b.raw().tail = 100
	require.NoError(t, b.look())
	assert.EqualValues(t, 1, b.state().FirstSeq, "nothing is as old")
	b.raw().history = time.Nanosecond
	for pause := stepPause; pause == stepPause; {
		var err error
		pause, err = b.keeper.look(t.Context(), b.raw())
		require.NoError(t, err)
	}
	assert.EqualValues(t, 100, b.state().Msgs, "the tail stays, however old")
	assert.InDelta(t, 4*batch-100, testutil.ToFloat64(b.keeper.metrics.trimmed.WithLabelValues("RAW")), 0)
	assert.Greater(t, old, time.Since(young))
}

func TestTrim(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	state := func(first, last uint64, bytes uint64, age time.Duration) *jetstream.StreamState {
		return &jetstream.StreamState{FirstSeq: first, LastSeq: last, Msgs: last - first + 1, Bytes: bytes << 20, FirstTime: now.Add(-age), LastTime: now}
	}
	const hour = time.Hour
	for _, test := range []struct {
		name  string
		state *jetstream.StreamState
		floor uint64
		tail  uint64
		to    uint64
		more  bool
	}{
		{"has room", state(1, 800, 800, 0), 800, 0, 0, false},
		{"within the slack", state(1, 807, 807, 0), 807, 0, 0, false},
		{"beyond it, down to its share", state(101, 912, 812, 0), 912, 0, 112, false},
		{"far beyond it, in steps", state(101, 1000, 900, 0), 1000, 0, 116, true},
		{"only what is acknowledged", state(101, 1000, 900, 0), 110, 0, 110, false},
		{"nothing is", state(101, 1000, 900, 0), 100, 0, 0, false},
		{"nor was ever", state(101, 1000, 900, 0), 0, 0, 0, false},
		{"all but the tail", state(650, 1000, 351, 200*hour), 1000, 300, 700, false},
		{"the tail is no more than half the share", state(1, 100, 1000, 200*hour), 100, 16384, 25, true},
		{"old", state(1, 100, 100, 2*hour), 100, 0, 13, true},
		{"old, and not acknowledged", state(1, 100, 100, 2*hour), 5, 0, 5, false},
		{"one that is hardly old", state(1, 100, 100, hour+time.Second), 100, 0, 1, true},
		{"much is old", state(1, 1000000, 800, 200*hour), 1000000, 0, 10000, true},
		{"empty", &jetstream.StreamState{FirstSeq: 101, LastSeq: 100}, 100, 0, 0, false},
	} {
		f := fill{limit: 1000 << 20, state: test.state, floor: test.floor}
		to, more := f.trim(0.8, test.tail, now.Add(-hour))
		assert.Equal(t, test.to, to, test.name)
		assert.Equal(t, test.more, more, test.name)
	}
}

func TestMost(t *testing.T) {
	t.Parallel()
	for limit, most := range map[int64]float64{
		8 << 30: 0.8*(8<<30) + 8<<20, 64 << 20: 47 << 20, // room for a batch of 16 MiB with what belongs to it
		4 << 20: 2 << 20,
	} {
		f := fill{limit: limit}
		assert.InDelta(t, most, f.most(0.8), 1)
	}
}

func TestGrowth(t *testing.T) {
	t.Parallel()
	var g growth
	start := time.Now()
	_, fills := g.full(1000)
	assert.False(t, fills)
	for i := range 10 {
		g.add(start.Add(time.Duration(i)*time.Minute), float64(60*i), float64(600*i))
	}
	left, fills := g.full(3600)
	assert.True(t, fills)
	assert.Equal(t, time.Hour, left, "a byte a second")
	assert.InDelta(t, 10, g.arriving(), 0)
	assert.LessOrEqual(t, len(g.samples), 4, "of late")
	g.add(start.Add(time.Hour), 0, 6000)
	_, fills = g.full(3600)
	assert.False(t, fills)
}

func TestPause(t *testing.T) {
	t.Parallel()
	for bytes, pause := range map[uint64]time.Duration{0: mostPause, 8 << 30: leastPause, 9 << 30: leastPause} {
		f := fill{limit: 8 << 30, state: &jetstream.StreamState{Bytes: bytes}}
		assert.Equal(t, pause, f.pause(), fmt.Sprint(bytes))
	}
	f := fill{limit: 64 << 20, state: &jetstream.StreamState{Bytes: 48 << 20}}
	assert.Equal(t, 100*time.Millisecond, f.pause(), "it could be full in 400 ms")
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := Config{RawHistory: 1, DecodedHistory: 1, FillingWithin: 1, Share: 0.8}
	require.NoError(t, good.Validate())
	for _, spoil := range []func(*Config){
		func(c *Config) { c.RawHistory = 0 }, func(c *Config) { c.DecodedHistory = -1 },
		func(c *Config) { c.FillingWithin = 0 }, func(c *Config) { c.Share = 0.95 }, func(c *Config) { c.Share = 0 },
	} {
		bad := good
		spoil(&bad)
		require.Error(t, bad.Validate())
	}
}
