package soak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
)

// The oracle says what became of each message, from the journal, the streams and the
// tables alone. It uses none of the code that moves messages, and none of the ledger's.

// entry is what is known of one message.
type entry struct {
	kind    kind
	sends   uint8 // by the controller
	acked   bool
	raw     uint8 // how often RAW has it
	rows    uint8 // how often the tables have it, without a mark
	repeats uint8 // how often they have it marked as a possible repeat
	dead    uint8 // its dead letters
	altered bool
	at      int64 // its own time
	ackedAt int64
}

// oracle judges one run.
type oracle struct {
	fleet    []fleet.Controller
	messages [][]entry // by controller and number
	byDevice map[int32]int
	byMAC    map[string]int
	equal    []equalTotals // by controller
	counted  []uint64      // dead letters by controller, as the newest of them says: older ones make room
	unknown  int           // rows and messages that nobody sent
	lost     []Loss
}

// equalTotals are of messages that cannot be told apart.
type equalTotals struct{ raw, rows, repeats int }

// Loss is a message that the broker acknowledged and that is nowhere.
type Loss struct {
	MAC    string    `json:"mac"`
	Number uint32    `json:"number"`
	Kind   string    `json:"kind"`
	Acked  time.Time `json:"acknowledged"`
	InRAW  bool      `json:"in_raw"`
}

// Verdict says what became of the messages of a run.
type Verdict struct {
	Sent         int `json:"sent"`
	Acknowledged int `json:"acknowledged"`
	Repeated     int `json:"repeated_by_controller"` // sent again, because no PUBACK came
	Written      int `json:"written"`
	DeadLettered int `json:"dead_lettered"`
	AtBroker     int `json:"lost_at_broker"`    // within the broker's bound (design 5.10)
	Lost         int `json:"lost"`              // everywhere else
	Doubled      int `json:"doubled"`           // twice in the tables, unmarked
	Marked       int `json:"marked_as_repeats"` // rows that are marked as possible repeats
	Altered      int `json:"altered"`
	Unknown      int `json:"unknown"` // rows and messages that nobody sent
	// BrokerWindow is how long before a broker's end the oldest of the messages was
	// acknowledged that only the broker had.
	BrokerWindow time.Duration `json:"broker_window_ns"`
	Examples     []Loss        `json:"examples,omitempty"`
}

// sound is whether nothing is wrong behind the broker, and nothing at the broker beyond
// the bound.
func (v Verdict) sound() bool { return v.Lost+v.Doubled+v.Altered+v.Unknown == 0 }

const maxExamples = 10

func newOracle(controllers []fleet.Controller) *oracle {
	o := &oracle{
		fleet: controllers, messages: make([][]entry, len(controllers)), byDevice: map[int32]int{}, byMAC: map[string]int{},
		equal: make([]equalTotals, len(controllers)),
	}
	for i, c := range controllers {
		o.byDevice[int32(c.Sensors()[0].DeviceID)] = i //nolint:gosec // small
		o.byMAC[string(c.MAC)] = i
	}
	return o
}

// read reads the journal.
func (o *oracle) read(path string) error {
	return readJournal(path, func(r record) {
		of := &o.messages[r.Controller]
		for uint32(len(*of)) <= r.N { //nolint:gosec // small
			*of = append(*of, entry{})
		}
		e := &(*of)[r.N]
		switch r.Op {
		case sent:
			e.kind, e.at, e.sends = r.Kind, r.At, 1
		case again:
			e.sends++
		case acked:
			e.acked, e.ackedAt = true, r.At
		}
	})
}

// find is the message of a number, nil if it was not sent.
func (o *oracle) find(controller int, n uint32) *entry {
	if of := o.messages[controller]; n < uint32(len(of)) && of[n].sends > 0 { //nolint:gosec // small
		return &of[n]
	}
	return nil
}

// scan calls each for all messages of a stream, as of now.
func scan(ctx context.Context, js jetstream.JetStream, stream string, each func(m jetstream.Msg, sequence uint64) error) error {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream, err)
	}
	last := s.CachedInfo().State.LastSeq
	if s.CachedInfo().State.Msgs == 0 {
		return nil
	}
	consumer, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream, err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("reading stream %s: %w", stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("reading stream %s: %w", stream, err)
		}
		if err := each(m, meta.Sequence.Stream); err != nil {
			return err
		}
		if meta.Sequence.Stream >= last {
			return nil
		}
	}
}

// readStreams finds the messages in RAW and in DEAD_LETTER.
func (o *oracle) readStreams(ctx context.Context, js jetstream.JetStream) error {
	subjects := map[string]int{} // of equal events, and of all that can be poison
	kindsOf := map[string][]kind{}
	for i, c := range o.fleet {
		for k := range kinds {
			subject := subjectOf(string(c.MAC), k)
			subjects[subject] = i
			kindsOf[subject] = append(kindsOf[subject], k)
		}
	}
	poisoned := map[uint64]*entry{} // by sequence in RAW
	o.counted = make([]uint64, len(o.fleet))
	err := scan(ctx, js, "RAW", func(m jetstream.Msg, sequence uint64) error {
		i, ours := subjects[m.Subject()]
		if !ours {
			return nil // the report of a command
		}
		if slices.Equal(kindsOf[m.Subject()], []kind{equalEvent}) {
			o.equal[i].raw++
			return nil
		}
		n, ok := numberOf(m.Data())
		e := (*entry)(nil)
		if ok {
			e = o.find(i, n)
		}
		if e == nil {
			o.unknown++
			return nil
		}
		e.raw++
		if string(payloadOf(e.kind, n, time.UnixMicro(e.at))) != string(m.Data()) || subjectOf(string(o.fleet[i].MAC), e.kind) != m.Subject() {
			e.altered = true
		}
		if e.kind == poison {
			poisoned[sequence] = e
		}
		return nil
	})
	if err != nil {
		return err
	}
	return scan(ctx, js, "DEAD_LETTER", func(m jetstream.Msg, _ uint64) error {
		sequence, err := strconv.ParseUint(m.Headers().Get("F2-Raw-Sequence"), 10, 64)
		if err != nil {
			return nil //nolint:nilerr // of the bridge, which refuses none of ours
		}
		e := poisoned[sequence]
		if e == nil {
			return nil
		}
		e.dead++
		mac := m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:]
		if i, ours := o.byMAC[mac]; ours {
			count, _ := strconv.ParseUint(m.Headers().Get("F2-Count"), 10, 64)
			o.counted[i] = max(o.counted[i], count)
		}
		return nil
	})
}

// readTables finds the messages in the tables.
func (o *oracle) readTables(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, "SELECT device_id, time, value FROM measurement")
	if err != nil {
		return fmt.Errorf("reading measurement: %w", err)
	}
	var device int32
	var at time.Time
	var value *float64
	if _, err = pgx.ForEachRow(rows, []any{&device, &at, &value}, func() error {
		i, ours := o.byDevice[device]
		if !ours || value == nil {
			return nil
		}
		e := o.find(i, uint32(*value))
		if e == nil {
			o.unknown++
			return nil
		}
		e.rows++
		if e.kind != timedReading && e.kind != untimedReading || e.kind == timedReading && at.UnixMicro() != e.at {
			e.altered = true
		}
		return nil
	}); err != nil {
		return fmt.Errorf("reading measurement: %w", err)
	}
	rows, err = conn.Query(ctx, "SELECT mac, component, time, state->>'data', possible_repeat FROM device_event WHERE root = 'tele'")
	if err != nil {
		return fmt.Errorf("reading device_event: %w", err)
	}
	var mac, component string
	var data *string
	var repeat bool
	if _, err = pgx.ForEachRow(rows, []any{&mac, &component, &at, &data, &repeat}, func() error {
		o.event(mac, component, at, data, repeat)
		return nil
	}); err != nil {
		return fmt.Errorf("reading device_event: %w", err)
	}
	return nil
}

func (o *oracle) event(mac, component string, at time.Time, data *string, repeat bool) {
	i, ours := o.byMAC[mac]
	if !ours {
		return
	}
	if component == "motion-sensor-1" {
		if repeat {
			o.equal[i].repeats++
		} else {
			o.equal[i].rows++
		}
		return
	}
	n, ok := uint32(0), false
	if data != nil {
		n, ok = cardOf(*data)
	}
	e := (*entry)(nil)
	if ok {
		e = o.find(i, n)
	}
	switch {
	case e == nil:
		o.unknown++
		return
	case repeat:
		e.repeats++
	default:
		e.rows++
	}
	if e.kind != timedEvent && e.kind != untimedEvent || e.kind == timedEvent && at.UnixMicro() != e.at {
		e.altered = true
	}
}

// judge sums up. ends are when the broker died, and bound is how long before that it may
// have acknowledged what it then lost.
func (o *oracle) judge(ends []time.Time, bound time.Duration) Verdict {
	v := Verdict{Unknown: o.unknown}
	for i := range o.messages {
		equal := equalTotals{}
		o.forget(i)
		for n := range o.messages[i] {
			e := &o.messages[i][n]
			if e.sends == 0 {
				continue
			}
			v.Sent++
			v.Repeated += int(e.sends) - 1
			if e.acked {
				v.Acknowledged++
			}
			if e.kind == equalEvent {
				equal.raw++
				if e.acked {
					equal.rows++
				}
				equal.repeats += int(e.sends) - 1
				continue
			}
			o.one(&v, i, uint32(n), e, ends, bound) //nolint:gosec // small
		}
		o.equalEvents(&v, i, equal, ends)
	}
	v.Examples = o.lost
	return v
}

// forget finds the dead letters that had to make room for newer ones: the count of the
// newest has them.
func (o *oracle) forget(controller int) {
	var all []*entry
	for n := range o.messages[controller] {
		if e := &o.messages[controller][n]; e.kind == poison && e.raw > 0 {
			all = append(all, e)
		}
	}
	if uint64(len(all)) > o.counted[controller] {
		return
	}
	for _, e := range all {
		e.dead = max(e.dead, 1)
	}
}

// one judges a message that can be told from all others.
func (o *oracle) one(v *Verdict, controller int, n uint32, e *entry, ends []time.Time, bound time.Duration) {
	v.Marked += int(e.repeats)
	switch {
	case e.kind == poison && e.dead > 0:
		v.DeadLettered++
	case e.kind != poison && e.rows+e.repeats > 0:
		v.Written++
	case e.acked || e.raw > 0:
		o.missing(v, controller, n, e, ends, bound)
	}
	if e.altered {
		v.Altered++
	}
	// What the controller sent again may be there as often, of readings without a time
	// and, marked, of events (design 5.3).
	if e.rows > 1 && !(e.kind == untimedReading && e.rows <= e.sends) {
		v.Doubled++
	}
}

func (o *oracle) missing(v *Verdict, controller int, n uint32, e *entry, ends []time.Time, bound time.Duration) {
	if e.raw == 0 {
		if age, ok := beforeEnd(e.ackedAt, ends); ok && age <= bound {
			v.AtBroker++
			v.BrokerWindow = max(v.BrokerWindow, age)
			return
		}
	}
	v.Lost++
	if len(o.lost) < maxExamples {
		o.lost = append(o.lost, Loss{string(o.fleet[controller].MAC), n, e.kind.String(), time.UnixMicro(e.ackedAt).UTC(), e.raw > 0})
	}
}

// beforeEnd is how long before the broker's next end a message was acknowledged.
func beforeEnd(acked int64, ends []time.Time) (age time.Duration, ok bool) {
	at := time.UnixMicro(acked)
	for _, end := range ends {
		if d := end.Sub(at); d > -time.Second && (!ok || d < age) {
			age, ok = max(d, 0), true
		}
	}
	return age, ok
}

// equalEvents judges those of one controller by their number: sent.raw is how many were sent,
// sent.rows how many of them were acknowledged, sent.repeats how many were sent again.
func (o *oracle) equalEvents(v *Verdict, controller int, sent equalTotals, ends []time.Time) {
	got := o.equal[controller]
	v.Written += min(got.rows+got.repeats, sent.raw)
	v.Marked += got.repeats
	if extra := max(got.rows-sent.raw, got.rows+got.repeats-got.raw); extra > 0 {
		v.Doubled += extra
	}
	if behind := got.raw - got.rows - got.repeats; behind > 0 {
		v.Lost += behind
	}
	if atBroker := sent.rows - got.raw; atBroker > 0 {
		if len(ends) > 0 {
			v.AtBroker += atBroker
		} else {
			v.Lost += atBroker
		}
	}
}

// judgeRun reads everything and judges it.
func judgeRun(ctx context.Context, s *system, controllers []fleet.Controller, journalPath string, ends []time.Time, bound time.Duration) (v Verdict, err error) {
	o := newOracle(controllers)
	if err := o.read(journalPath); err != nil {
		return v, err
	}
	if err := o.readStreams(ctx, s.js); err != nil {
		return v, err
	}
	conn, err := s.query(ctx)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := o.readTables(ctx, conn); err != nil {
		return v, err
	}
	return o.judge(ends, bound), nil
}
