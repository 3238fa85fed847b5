package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Interval is what of RAW is decoded once more.
type Interval struct {
	From, To time.Time // when RAW stored it; zero: from the beginning, until now
	MAC      topic.MAC // empty: all controllers
	// DryRun only compares.
	DryRun bool
	// Progress is called about every thousand messages, with the number that was
	// decoded and the total.
	Progress func(done, total uint64)
}

// Difference is how what messages decode to now compares with the tables.
type Difference struct {
	DryRun   bool              `json:"-"`
	Messages uint64            `json:"messages"` // of RAW
	Decoded  uint64            `json:"decoded"`
	Refused  map[string]uint64 `json:"refused,omitempty"` // messages of which nothing can be decoded, by the first reason
	Stored   uint64            `json:"stored"`            // put on DECODED
	Points   []PointDifference `json:"points"`            // by device and data point; events last

	index map[pointKey]*PointDifference
}

// PointDifference is that of one data point, or of all events.
type PointDifference struct {
	DeviceID    int32     `json:"device_id,omitempty"`
	DataPointID int32     `json:"datapoint_id,omitempty"`
	Label       string    `json:"label"`
	Same        uint64    `json:"same"`
	Changed     uint64    `json:"changed"`
	New         uint64    `json:"new"`
	Gone        uint64    `json:"gone"`   // rows that stay, though their message has no such value any more
	Second      uint64    `json:"second"` // another message's value came first
	Examples    []Example `json:"examples,omitempty"`
}

// Example is one row that changes.
type Example struct {
	Time   time.Time `json:"time"`
	Before string    `json:"before,omitempty"`
	After  string    `json:"after,omitempty"`
}

type pointKey struct{ device, point int32 }

const (
	maxExamples = 3
	// batchMessages are compared and stored together.
	batchMessages = 500
	// maxBehind is how far the writer may be behind: what live controllers send must
	// not wait long for what is decoded again.
	maxBehind = 10_000
)

// ErrNoHistory is why nothing is replaced in the tables of an earlier version.
var ErrNoHistory = errors.New("the table measurement_history is missing, so replaced values could not be kept: upgrade the writer first")

// Redecode decodes the interval's messages once more, and puts those on DECODED whose
// rows are new or change, to replace what the tables have.
func (m *Replayer) Redecode(ctx context.Context, i Interval) (*Difference, error) {
	if !i.DryRun && !m.Tables.HasHistory() {
		return nil, ErrNoHistory
	}
	incarnation, raw, err := m.incarnation(ctx)
	if err != nil {
		return nil, err
	}
	clear(m.Tables.points) // there may be others since
	difference := &Difference{DryRun: i.DryRun, Refused: map[string]uint64{}, index: map[pointKey]*PointDifference{}}
	var total uint64
	s := stream.Scan{Stream: stream.Raw, Since: i.From, Last: raw.CachedInfo().State.LastSeq, Begin: func(n uint64) { total = n }}
	if i.MAC != "" {
		s.Subjects = []string{"f2.raw.*." + string(i.MAC) + ".>"}
	}
	if s.Last == 0 {
		return difference, nil
	}
	var results []DecodedMessage
	flush := func() error {
		err := m.flush(ctx, results, difference, i.DryRun)
		results = results[:0]
		return err
	}
	err = s.Read(ctx, m.Streams.JetStream(), func(raw *stream.Message) error {
		if !i.To.IsZero() && raw.Time.After(i.To) {
			return stream.ErrStop
		}
		result, err := m.Decoder.Decode(ctx, raw, event.PlaceID(incarnation, raw.Sequence))
		if err != nil {
			return err
		}
		difference.Messages++
		if i.Progress != nil && difference.Messages%1024 == 0 {
			i.Progress(difference.Messages, total)
		}
		if result.Decoded == nil {
			difference.refuse(&result)
			return nil
		}
		difference.Decoded++
		if results = append(results, result); len(results) < batchMessages {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	difference.finish()
	return difference, err
}

func (d *Difference) refuse(r *DecodedMessage) {
	reason := "unknown"
	if len(r.Letters) > 0 {
		reason = r.Letters[0].Reason
	}
	d.Refused[reason]++
}

// flush compares results with the tables and stores those that change something.
func (m *Replayer) flush(ctx context.Context, results []DecodedMessage, difference *Difference, dryRun bool) error {
	if len(results) == 0 {
		return nil
	}
	changes, err := m.Tables.compare(ctx, decodedOf(results))
	if err != nil {
		return err
	}
	var messages []*nats.Msg
	for i := range results {
		differs := false
		for _, c := range changes[i] {
			difference.add(&c)
			differs = differs || c.kind == Changed || c.kind == New
		}
		if differs && !dryRun {
			messages = append(messages, results[i].message(true))
		}
	}
	if len(messages) == 0 {
		return nil
	}
	last, err := m.store(ctx, messages)
	if err != nil {
		return fmt.Errorf("putting messages on %s: %w", stream.Decoded, err)
	}
	difference.Stored += uint64(len(messages))
	return m.awaitWriter(ctx, last, maxBehind)
}

func decodedOf(results []DecodedMessage) []*event.Decoded {
	all := make([]*event.Decoded, len(results))
	for i := range results {
		all[i] = results[i].Decoded
	}
	return all
}

func (d *Difference) add(c *change) {
	key := pointKey{c.device, c.point}
	p := d.index[key]
	if p == nil {
		p = &PointDifference{DeviceID: c.device, DataPointID: c.point}
		d.index[key] = p
	}
	if c.device == 0 {
		p.Label = "events"
	} else if c.label != "" {
		p.Label = c.label
	}
	switch c.kind {
	case Same:
		p.Same++
		return
	case Second:
		p.Second++
		return
	case Changed:
		p.Changed++
	case New:
		p.New++
	case Gone:
		p.Gone++
	}
	if len(p.Examples) < maxExamples {
		p.Examples = append(p.Examples, Example{Time: c.time, Before: c.before, After: c.after})
	}
}

func (d *Difference) finish() {
	d.Points = make([]PointDifference, 0, len(d.index))
	for _, p := range d.index {
		d.Points = append(d.Points, *p)
	}
	slices.SortFunc(d.Points, func(x, y PointDifference) int {
		if events := x.DeviceID == 0; events != (y.DeviceID == 0) {
			return map[bool]int{true: 1, false: -1}[events]
		}
		return cmp.Or(cmp.Compare(x.DeviceID, y.DeviceID), cmp.Compare(x.DataPointID, y.DataPointID))
	})
}

// Changes is how many rows change or are new.
func (d *Difference) Changes() (n uint64) {
	for i := range d.Points {
		n += d.Points[i].Changed + d.Points[i].New
	}
	return n
}
