package soak

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
)

func TestSeedRepeats(t *testing.T) {
	t.Parallel()
	names := func(seed uint64) (names []string) {
		for _, p := range plan(faultKinds(), seed, 40) {
			names = append(names, p.kind.name+p.hold.String())
		}
		return names
	}
	first, second := names(7), names(7)
	assert.Equal(t, first, second)
	assert.NotEqual(t, names(7), names(8))
	kinds := map[string]bool{}
	for _, p := range plan(faultKinds(), 7, len(Kinds())) {
		kinds[p.kind.name] = true
	}
	assert.Len(t, kinds, len(Kinds()), "each kind comes once before one comes twice")
}

func TestTargetIsChecked(t *testing.T) {
	t.Parallel()
	of := func(name string) []faultKind { return (&Config{Kinds: []string{name}}).kinds() }
	s := &system{breakable: []string{"nats", "postgres", "writer"}}
	require.NoError(t, checkTarget(s, of("kill"), ""))
	require.NoError(t, checkTarget(s, of("kill"), "writer"))
	require.NoError(t, checkTarget(s, of("power-cut"), "writer"), "it has no choice")
	require.ErrorContains(t, checkTarget(s, of("kill"), "nobody"), "faults of kind kill hit nats, postgres")
	require.Error(t, checkTarget(s, of("rotate"), "writer"))
}

func TestMessages(t *testing.T) {
	t.Parallel()
	seen := map[kind]bool{}
	for n := range uint32(100) {
		k := kindOf(n)
		seen[k] = true
		number, ok := numberOf(payloadOf(k, n, time.UnixMicro(1)))
		assert.Equal(t, k != equalEvent, ok, k)
		if ok {
			assert.Equal(t, n, number)
		}
	}
	assert.Len(t, seen, int(kinds))
	assert.Equal(t, "f2.raw.tele.e4fd45f654be.access-control-mode.3.reader-1", subjectOf("e4fd45f654be", timedEvent))
	assert.Equal(t, "tele/f2-e4fd45f654be/access-control-mode/J3/reader-1", topicOf("e4fd45f654be", timedEvent))
}

func TestJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j, err := createJournal(path)
	require.NoError(t, err)
	want := []record{{1, timedEvent, sent, 7, 12345}, {1, timedEvent, again, 7, 12345}, {1, timedEvent, acked, 7, -1}}
	for _, r := range want {
		j.add(r)
	}
	require.NoError(t, j.close())
	var got []record
	require.NoError(t, readJournal(path, func(r record) { got = append(got, r) }))
	assert.Equal(t, want, got)
}

// TestOracle has one message of each fate.
func TestOracle(t *testing.T) {
	t.Parallel()
	end := time.Unix(1000, 0)
	before := func(d time.Duration) int64 { return end.Add(-d).UnixMicro() }
	for name, test := range map[string]struct {
		e    entry
		want Fates
	}{
		"written":                         {entry{kind: timedReading, sends: 1, acked: true, raw: 1, rows: 1}, Fates{Acknowledged: 1, Written: 1}},
		"only sent":                       {entry{kind: timedReading, sends: 1}, Fates{}},
		"not acknowledged, there":         {entry{kind: timedReading, sends: 1, raw: 1, rows: 1}, Fates{Written: 1}},
		"dead letter":                     {entry{kind: poison, sends: 1, acked: true, raw: 1, dead: 1}, Fates{Acknowledged: 1, DeadLettered: 1}},
		"no dead letter":                  {entry{kind: poison, sends: 1, acked: true, raw: 1}, Fates{Acknowledged: 1, Lost: 1}},
		"lost behind RAW":                 {entry{kind: timedEvent, sends: 1, acked: true, raw: 1, ackedAt: before(0)}, Fates{Acknowledged: 1, Lost: 1}},
		"unacknowledged, lost behind RAW": {entry{kind: timedEvent, sends: 1, raw: 1}, Fates{Lost: 1}},
		"lost at the broker": {
			entry{kind: timedEvent, sends: 1, acked: true, ackedAt: before(300 * time.Millisecond)},
			Fates{Acknowledged: 1, AtBroker: 1, NotInRAW: 1, BrokerWindow: 300 * time.Millisecond},
		},
		"lost long before the broker's end": {entry{kind: timedEvent, sends: 1, acked: true, ackedAt: before(2 * time.Second)}, Fates{Acknowledged: 1, Lost: 1, NotInRAW: 1}},
		"lost after the broker's end":       {entry{kind: timedEvent, sends: 1, acked: true, ackedAt: before(-2 * time.Second)}, Fates{Acknowledged: 1, Lost: 1, NotInRAW: 1}},
		"twice":                             {entry{kind: untimedEvent, sends: 1, acked: true, raw: 1, rows: 2}, Fates{Acknowledged: 1, Written: 1, Doubled: 1}},
		"twice, marked":                     {entry{kind: untimedEvent, sends: 1, acked: true, raw: 2, rows: 1, repeats: 1}, Fates{Acknowledged: 1, Written: 1, Marked: 1}},
		"a reading twice, sent twice":       {entry{kind: untimedReading, sends: 2, acked: true, raw: 2, rows: 2}, Fates{Acknowledged: 1, Repeated: 1, Written: 1}},
		"a reading twice, sent once":        {entry{kind: untimedReading, sends: 1, acked: true, raw: 2, rows: 2}, Fates{Acknowledged: 1, Written: 1, Doubled: 1}},
		"an event twice, sent twice":        {entry{kind: untimedEvent, sends: 2, acked: true, raw: 2, rows: 2}, Fates{Acknowledged: 1, Repeated: 1, Written: 1, Doubled: 1}},
		"altered":                           {entry{kind: timedReading, sends: 1, acked: true, raw: 1, rows: 1, altered: true}, Fates{Acknowledged: 1, Written: 1, Altered: 1}},
	} {
		o := newOracle(fleet.Demo(1))
		o.counted = make([]uint64, 1)
		o.messages[0] = []entry{test.e}
		got := o.judge([]time.Time{end}, time.Second)
		got.Examples, test.want.Sent = nil, 1
		assert.Equal(t, test.want, got, name)
	}
}

// TestEqualEvents are judged by their number.
func TestEqualEvents(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		got  equalTotals
		ends []time.Time
		want Fates
	}{
		"all there":           {equalTotals{3, 3, 0}, nil, Fates{Written: 3}},
		"one marked":          {equalTotals{3, 2, 1}, nil, Fates{Written: 3, Marked: 1}},
		"one not in tables":   {equalTotals{3, 2, 0}, nil, Fates{Written: 2, Lost: 1}},
		"one twice in tables": {equalTotals{3, 4, 0}, nil, Fates{Written: 3, Doubled: 1}},
		"one not in RAW":      {equalTotals{2, 2, 0}, nil, Fates{Written: 2, Lost: 1, NotInRAW: 1}},
		"one at the broker":   {equalTotals{2, 2, 0}, []time.Time{time.Unix(1, 0)}, Fates{Written: 2, AtBroker: 1, NotInRAW: 1}},
	} {
		o := newOracle(fleet.Demo(1))
		o.equal[0] = test.got
		var v Fates
		o.equalEvents(&v, 0, equalTotals{3, 3, 0}, test.ends)
		assert.Equal(t, test.want, v, name)
	}
}

// TestLedgerDisagrees: a ledger that sees something else than the oracle is a problem.
func TestLedgerDisagrees(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fates    Fates
		balanced bool
		notInRAW int
		agree    bool
	}{
		"nothing lost":                       {Fates{}, true, 0, true},
		"nothing lost, no balance":           {Fates{}, false, 0, false},
		"at the broker":                      {Fates{AtBroker: 2, NotInRAW: 2}, true, 2, true},
		"at the broker, not seen":            {Fates{AtBroker: 2, NotInRAW: 2}, true, 0, false},
		"long before, seen":                  {Fates{AtBroker: 2, Lost: 1, NotInRAW: 3}, true, 3, true},
		"behind RAW":                         {Fates{Lost: 1}, false, 0, true},
		"behind RAW, not seen":               {Fates{Lost: 1}, true, 0, false},
		"behind RAW and at the broker, both": {Fates{Lost: 1, AtBroker: 1, NotInRAW: 1}, false, 1, true},
		"doubled, not seen":                  {Fates{Doubled: 1}, true, 0, false},
	} {
		r := RunReport{Fates: test.fates, LedgerBalanced: test.balanced, LedgerNotInRAW: test.notInRAW}
		assert.Equal(t, test.agree, !strings.Contains(strings.Join(r.Problems(), "\n"), "disagrees"), name)
	}
}

func TestCommandTotals(t *testing.T) {
	t.Parallel()
	issued := time.Unix(1000, 0)
	on := []time.Time{issued.Add(time.Second)}
	for name, test := range map[string]struct {
		c      sentCommand
		faults int
	}{
		"confirmed":                         {sentCommand{stored: true, carriedOut: on, outcomes: []string{"confirmed"}}, 0},
		"unknown, not carried out":          {sentCommand{stored: true, outcomes: []string{"unknown"}}, 0},
		"unknown, then confirmed":           {sentCommand{stored: true, carriedOut: on, outcomes: []string{"unknown", "confirmed"}}, 0},
		"expired":                           {sentCommand{stored: true, outcomes: []string{"expired"}}, 0},
		"expired, yet carried out":          {sentCommand{stored: true, carriedOut: on, outcomes: []string{"expired"}}, 1},
		"confirmed, not carried out":        {sentCommand{stored: true, outcomes: []string{"confirmed"}}, 1},
		"no outcome":                        {sentCommand{stored: true}, 1},
		"not stored":                        {sentCommand{}, 0},
		"carried out twice":                 {sentCommand{stored: true, carriedOut: slices.Concat(on, on), outcomes: []string{"confirmed"}}, 1},
		"carried out late":                  {sentCommand{stored: true, carriedOut: []time.Time{issued.Add(time.Minute)}, outcomes: []string{"unknown"}}, 1},
		"not stored, yet carried out twice": {sentCommand{carriedOut: slices.Concat(on, on)}, 1},
	} {
		b := newCommandBook()
		test.c.issued = issued
		b.sent["x"] = &test.c
		assert.Equal(t, test.faults, b.totals(6*time.Second, nil).faults(), name)
	}
	const first, second, other = `m{"power-flag":1,"period":1}`, `m{"power-flag":1,"period":2}`, `m{"power-flag":0,"period":1}`
	confirmed := func() *sentCommand {
		return &sentCommand{stored: true, issued: issued, outcomes: []string{"confirmed"}}
	}
	b := newCommandBook()
	b.sent = map[string]*sentCommand{first: confirmed(), second: confirmed(), other: confirmed()}
	b.sent[second].carriedOut = on
	assert.Equal(t, 1, b.totals(time.Minute, nil).Untrue, "the first is confirmed by the state that the second led to, the other by nothing")
	b.sent[second].carriedOut = []time.Time{issued.Add(-time.Second)}
	assert.Equal(t, 3, b.totals(time.Minute, nil).Untrue, "the state was reached before the commands were issued")
	b.sent[second].carriedOut = []time.Time{issued.Add(5 * time.Minute)}
	assert.Equal(t, 3, b.totals(time.Minute, nil).Untrue, "the state was reached too late")
	b.sent[first].outcomes = []string{"unknown", "confirmed"}
	assert.Equal(t, 2, b.totals(time.Minute, nil).Untrue, "a late report replaces an unknown outcome")
	b = newCommandBook()
	b.carriedOut("02f200000001", "{}", issued)
	assert.Equal(t, 1, b.totals(time.Second, nil).faults(), "a command that nobody sent")
}

// TestHeldCommands: a command may come late out of a connection that was interrupted when it was
// written, if its sender learnt that its outcome is unknown.
func TestHeldCommands(t *testing.T) {
	t.Parallel()
	issued := time.Unix(1000, 0)
	after := func(seconds int) time.Time { return issued.Add(time.Duration(seconds) * time.Second) }
	partition := Fault{Kind: "partition", Target: controllersLink, At: after(1), Healed: after(15)}
	held := sentCommand{stored: true, issued: issued, carriedOut: []time.Time{after(16)}, outcomes: []string{"unknown", "confirmed"}}
	for name, test := range map[string]struct {
		change func(*sentCommand, *Fault)
		held   int
	}{
		"held up":                           {func(*sentCommand, *Fault) {}, 1},
		"elsewhere":                         {func(_ *sentCommand, f *Fault) { f.Target = "bridge-mosquitto" }, 0},
		"slow, not interrupted":             {func(_ *sentCommand, f *Fault) { f.Kind = "latency" }, 0},
		"the sender believes otherwise":     {func(c *sentCommand, _ *Fault) { c.outcomes = []string{"confirmed"} }, 0},
		"interrupted after its time":        {func(_ *sentCommand, f *Fault) { f.At = after(7) }, 0},
		"carried out long after the fault":  {func(c *sentCommand, _ *Fault) { c.carriedOut[0] = after(18) }, 0},
		"carried out before the fault":      {func(_ *sentCommand, f *Fault) { f.At, f.Healed = after(17), after(20) }, 0},
		"carried out twice, the first late": {func(c *sentCommand, _ *Fault) { c.carriedOut = append(c.carriedOut, after(60)) }, 1},
	} {
		c, f := held, partition
		c.carriedOut = slices.Clone(held.carriedOut)
		test.change(&c, &f)
		b := newCommandBook()
		b.sent["x"] = &c
		totals := b.totals(6*time.Second, outages([]Fault{f}))
		assert.Equal(t, test.held, totals.Held, name)
		assert.Equal(t, len(c.carriedOut)-test.held, totals.Late, name)
	}
}

func publishPacket(id byte) []byte {
	return []byte{typePublish<<4 | 2, 2 + 1 + 2 + 3, 0, 1, 't', 0, id, 'a', 'b', 'c'}
}

func TestLies(t *testing.T) {
	t.Parallel()
	stream := slices.Concat(publishPacket(7), publishPacket(8))
	for split := range stream {
		early := acknowledgeAtOnce()
		forward, back := early(false, stream[:split])
		more, moreBack := early(false, stream[split:])
		assert.Equal(t, stream, slices.Concat(forward, more), "the bridge gets all")
		assert.Equal(t, []byte{0x40, 2, 0, 7, 0x40, 2, 0, 8}, slices.Concat(back, moreBack))
		forward, _ = early(true, []byte{0x40, 2, 0, 7, 0xc0, 0})
		assert.Equal(t, []byte{0xc0, 0}, forward, "the bridge's own PUBACK goes nowhere")

		move := withOtherIdentifiers()
		forward, _ = move(false, stream[:split])
		more, _ = move(false, stream[split:])
		moved := slices.Concat(forward, more)
		require.Len(t, moved, len(stream))
		one, two := moved[5:7], moved[len(stream)/2+5:][:2]
		assert.NotEqual(t, []byte{0, 7}, one)
		back, _ = move(true, slices.Concat([]byte{0x40, 2}, one, []byte{0x40, 2}, two, []byte{0xc0, 0}))
		assert.Equal(t, []byte{0x40, 2, 0, 7, 0x40, 2, 0, 8, 0xc0, 0}, back, "the broker knows its own identifiers again")
	}
}

// TestLink passes bytes, holds them back, and ends connections.
func TestLink(t *testing.T) {
	t.Parallel()
	echo, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = echo.Close() }()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	l, err := newLink("test", echo.Addr().String(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer l.close()
	dial := func() net.Conn {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.address())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	read := func(conn net.Conn, wait time.Duration) ([]byte, error) {
		b := make([]byte, 4)
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		_, err := io.ReadFull(conn, b)
		return b, err
	}
	conn := dial()
	_, err = conn.Write([]byte("ping"))
	require.NoError(t, err)
	got, err := read(conn, 10*time.Second)
	require.NoError(t, err)
	assert.True(t, bytes.Equal([]byte("ping"), got))

	l.set(condition{blocked: true})
	_, err = conn.Write([]byte("held"))
	require.NoError(t, err)
	_, err = read(conn, 300*time.Millisecond)
	require.Error(t, err, "nothing passes")
	l.set(condition{})
	got, err = read(conn, 10*time.Second)
	require.NoError(t, err, "what was under way arrives")
	assert.Equal(t, "held", string(got))

	for _, way := range []direction{toServer, toClient} {
		l.set(condition{blocked: true, oneWay: way})
		_, err = conn.Write([]byte("held"))
		require.NoError(t, err)
		_, err = read(conn, 300*time.Millisecond)
		require.Error(t, err, "one way is enough")
		l.set(condition{})
		_, err = read(conn, 10*time.Second)
		require.NoError(t, err)
	}

	l.set(condition{latency: 100 * time.Millisecond})
	began := time.Now()
	_, err = conn.Write([]byte("late"))
	require.NoError(t, err)
	_, err = read(conn, 10*time.Second)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond)

	l.cut()
	_, err = read(conn, 10*time.Second)
	require.Error(t, err)
	l.set(condition{})
	_, err = dial().Write([]byte("anew"))
	require.NoError(t, err, "a new connection is possible")
}
