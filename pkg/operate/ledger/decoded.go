package ledger

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/rows"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	probeRows  = 10_000
	probeBytes = 4 << 20 // of texts and states
)

// probe is a batch of rows that should be in the tables, as the columns that
// the queries take.
type probe struct {
	time          []time.Time
	device, point []int32
	id            []pgtype.UUID
	value         []pgtype.Float8
	text          []pgtype.Text
	of            []origin

	events  rows.Events
	eventOf []origin

	bytes int
}

// origin is the message that a row comes from.
type origin struct {
	record  *record
	decoded uint64 // sequence on DECODED
	pending bool   // the writer has not processed it yet
}

func (p *probe) rows() int { return len(p.of) + len(p.eventOf) }

func (p *probe) full() bool { return p.rows() >= probeRows || p.bytes >= probeBytes }

// add appends the rows of d, which it does not keep.
func (p *probe) add(d *event.Decoded, of origin) {
	for i := range d.Values {
		v := &d.Values[i]
		p.time = append(p.time, d.Time)
		p.device, p.point = append(p.device, d.DeviceID), append(p.point, v.DataPointID)
		number, text := pgtype.Float8{Float64: v.Number, Valid: v.Text == nil}, pgtype.Text{Valid: v.Text != nil}
		if v.Text != nil {
			// PostgreSQL has no NUL: such a text is in no row, and must not
			// make the query fail.
			text.String = strings.ReplaceAll(*v.Text, "\x00", "\uFFFD")
			p.bytes += len(text.String)
		}
		p.value, p.text = append(p.value, number), append(p.text, text)
		p.id, p.of = append(p.id, rows.UUID(d.ID)), append(p.of, of)
	}
	if d.State != nil {
		event := *d
		event.State = slices.Clone(d.State)
		p.events.Add(&event)
		p.eventOf = append(p.eventOf, of)
		p.bytes += len(d.State)
	}
}

// matchDecoded notes which messages were decoded, and has the tables probed
// for their rows meanwhile.
func (a *audit) matchDecoded(ctx context.Context) error {
	probes := make(chan *probe, 2)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.probeTables(ctx, probes) })
	group.Go(func() error {
		defer close(probes)
		return a.readDecoded(ctx, probes)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	rows := &a.report.Rows
	for i := range a.changedEvents {
		if c := &a.changedEvents[i]; a.replaced[c.of.record.sequence] > c.of.decoded {
			rows.History++
		} else {
			a.fault(c.of, c.fault)
		}
	}
	rows.Found = rows.Expected - rows.History - rows.Refused - rows.NotKept - rows.Pending - rows.Absent - rows.Differing
	return nil
}

// changedEvent is an event whose row has another state. That is no fault where the
// message was decoded once more, and the row has what came of it.
type changedEvent struct {
	of    origin
	fault RowFault
}

func (a *audit) readDecoded(ctx context.Context, probes chan<- *probe) error {
	p := new(probe)
	send := func() error {
		select {
		case probes <- p:
			p = new(probe)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var d event.Decoded
	s := stream.Scan{Stream: stream.Decoded, Subjects: a.subjects("f2.decoded.", ".>"), Since: a.cut.downstream()}
	err := a.readOutcomes(ctx, s, func(m *stream.Message) error {
		r := a.decoded(m, &d)
		if r == nil {
			return nil
		}
		if d.State != nil && value(m.Header, event.HeaderReplace) != "" {
			a.replaced[r.sequence] = m.Sequence
		}
		p.add(&d, origin{record: r, decoded: m.Sequence, pending: m.Sequence > a.writerFloor()})
		if p.full() {
			return send()
		}
		return nil
	})
	if err != nil || p.rows() == 0 {
		return err
	}
	return send()
}

// stepBack is how far before its message an outcome may be stored by the
// server's clock, which may have been set back between.
const stepBack = time.Minute

// downstream is from when on DECODED is read.
func (c *cut) downstream() time.Time {
	if c.since.IsZero() {
		return c.since
	}
	return c.since.Add(-stepBack)
}

// decoded parses m into d and returns its record, or nil if m is no outcome of
// a message of the interval.
func (a *audit) decoded(m *stream.Message, d *event.Decoded) *record {
	if err := event.ParseDecoded(m.Subject, m.Data, d); err != nil || len(d.Values) == 0 && d.State == nil {
		if a.cut.holds(m.Time) {
			a.unexplained(d.ID, stream.Decoded, m.Sequence)
		}
		return nil
	}
	r, unexplained := a.place(d.ID, d.Received, m.Time)
	if r != nil && a.book.devices[r.device].MAC != topic.MAC(token(m.Subject, 2)) {
		r, unexplained = nil, true
	}
	if unexplained {
		a.unexplained(d.ID, stream.Decoded, m.Sequence)
	}
	if r == nil {
		return nil
	}
	stage := a.stage(stream.StageWriter)
	stage.Received++
	if r.decoded != 0 {
		stage.Copies++
	} else {
		r.decoded = m.Sequence
	}
	r.expected += uint32(len(d.Values)) //nolint:gosec // as many as a message of 2 MiB holds
	if d.State != nil {
		r.expected++
	}
	return r
}
