package ledger

import (
	"cmp"
	"slices"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// fate is what became of a message in the end.
type fate uint8

const (
	written fate = iota
	deadLettered
	notKeptLetter // dead-lettered, by a letter that is no longer kept
	pending
	waiting // pending, parked
	missing
)

// fate returns what became of a message and the last stage that had it.
// inParts is true if only letters of its parts say so.
func (a *audit) fate(r *record) (f fate, stage string, inParts bool) {
	switch {
	case r.decoded != 0:
		return writerFate(r), stream.StageWriter, false
	case r.flags&refusedByWriter != 0: // and gone from DECODED since
		return deadLettered, stream.StageWriter, false
	case r.flags&refusedByDecoder != 0:
		return deadLettered, stream.StageDecoder, r.flags&refusedInPart != 0
	case r.flags&parked != 0:
		return waiting, stream.StageDecoder, false
	case r.sequence > a.decoderFloor():
		return pending, stream.StageDecoder, false
	case a.explain(stream.StageDecoder, r):
		return notKeptLetter, stream.StageDecoder, false
	}
	return missing, stream.StageDecoder, false
}

func writerFate(r *record) fate {
	switch {
	case r.rows&(rowAbsent|rowDiffers) != 0:
		return missing
	case r.rows&rowPending != 0:
		return pending
	case r.rows&rowLetter != 0:
		return notKeptLetter
	case r.refused == r.expected:
		return deadLettered
	}
	return written
}

// settle closes the book: every message has one fate.
func (a *audit) settle() {
	for i := range a.book.records {
		a.enter(&a.book.records[i])
	}
	report := a.report
	report.Devices = a.book.devices
	slices.SortFunc(report.Devices, func(x, y ControllerCounts) int { return cmp.Compare(x.MAC, y.MAC) })
	for i := range report.Devices {
		report.Total.add(&report.Devices[i].Counts)
	}
	report.Letters = slices.DeleteFunc(a.book.causes, func(l LetterCounts) bool { return l.Messages+l.Parts == 0 })
	slices.SortFunc(report.Letters, func(x, y LetterCounts) int {
		return cmp.Or(strings.Compare(x.Stage, y.Stage), strings.Compare(x.Reason, y.Reason))
	})
}

// enter counts one message, by its fate, for its device and its last stage.
func (a *audit) enter(r *record) {
	device := &a.book.devices[r.device]
	f, name, inParts := a.fate(r)
	stage := a.stage(name)
	if name == stream.StageWriter {
		device.Decoded++
		a.stage(stream.StageDecoder).Passed++
		if r.decoded == 0 {
			stage.Received++
		}
	}
	switch f {
	case written:
		device.Written++
		stage.Passed++
		if r.flags&(refusedInPart|writerPart) != 0 {
			device.Partial++
		}
	case deadLettered, notKeptLetter:
		device.DeadLettered++
		stage.DeadLettered++
		c := &a.book.causes[r.cause]
		c.Messages++
		if inParts {
			c.InParts++
		}
		if f == notKeptLetter {
			c.NotKept++
		}
	case waiting:
		a.report.Parked++
		fallthrough
	case pending:
		device.Pending++
		stage.Pending++
	case missing:
		device.Missing++
		stage.Missing++
		a.list(r, name, device)
	}
}

func (a *audit) list(r *record, stage string, device *ControllerCounts) {
	if len(a.report.Missing) >= a.options.MaxListed {
		return
	}
	m := Missing{ID: event.PlaceID(a.cut.incarnation, r.sequence), MAC: device.MAC, Stage: stage, Stream: stream.Raw, Sequence: r.sequence}
	if r.decoded != 0 {
		m.Stream, m.Sequence = stream.Decoded, r.decoded
	}
	a.report.Missing = append(a.report.Missing, m)
}

func (c *Counts) add(other *Counts) {
	c.Received += other.Received
	c.Decoded += other.Decoded
	c.Written += other.Written
	c.Partial += other.Partial
	c.DeadLettered += other.DeadLettered
	c.Copies += other.Copies
	c.Retained += other.Retained
	c.Pending += other.Pending
	c.Missing += other.Missing
}
