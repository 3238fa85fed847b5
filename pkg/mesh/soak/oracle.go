package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/event"
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
	examples []Sample
}

// Sample is a message that is lost or doubled.
type Sample struct {
	Fate    string    `json:"fate"`
	MAC     string    `json:"mac"`
	Number  uint32    `json:"number"`
	Kind    string    `json:"kind"`
	Acked   time.Time `json:"acknowledged"`
	Sends   int       `json:"sends"` // by the controller
	InRAW   int       `json:"in_raw"`
	Rows    int       `json:"rows"`
	Repeats int       `json:"marked_rows"`
}

// equalTotals are of messages that cannot be told apart.
type equalTotals struct{ raw, rows, repeats int }

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

// writeAcknowledged writes the digests of the acknowledged messages, as `f2mesh audit
// --acknowledged` takes them.
func (o *oracle) writeAcknowledged(path string) error {
	file, err := os.Create(path) //nolint:gosec // in a folder of our own
	if err != nil {
		return fmt.Errorf("writing the acknowledged digests: %w", err)
	}
	out := bufio.NewWriter(file)
	for i, messages := range o.messages {
		mac := string(o.fleet[i].MAC)
		for n := range messages {
			if e := &messages[n]; e.acked {
				digest := event.Digest(subjectOf(mac, e.kind), payloadOf(e.kind, uint32(n), time.UnixMicro(e.at)))
				fmt.Fprintf(out, "%x\n", digest)
			}
		}
	}
	if err := errors.Join(out.Flush(), file.Close()); err != nil {
		return fmt.Errorf("writing the acknowledged digests: %w", err)
	}
	return nil
}

// find is the message of a number, nil if it was not sent.
func (o *oracle) find(controller int, n uint32) *entry {
	if of := o.messages[controller]; n < uint32(len(of)) && of[n].sends > 0 { //nolint:gosec // small
		return &of[n]
	}
	return nil
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
