package ledger

import (
	"context"
	"strconv"
	"time"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
)

// unknownLabel is the decoder's reason for a number of the payload that is no
// data point: a part of a message, though the letter has no data point's id.
const unknownLabel = "unknown_label"

// stepBack is how far before its message an outcome may be stored by the
// server's clock, which may have been set back between.
const stepBack = time.Minute

// downstream is from when on outcomes are read.
func (c *cut) downstream() time.Time {
	if c.since.IsZero() {
		return c.since
	}
	return c.since.Add(-stepBack)
}

// readLetters notes what each stage refused. What the bridge refused was never
// on RAW, and counts as received by its letter; a command that it refused too.
func (a *audit) readLetters(ctx context.Context) error {
	s := scan{stream: deadletter.Stream, subjects: a.subjects("f2.dead.*.*.", ""), since: a.cut.downstream(), headersOnly: true}
	return a.read(ctx, s, func(m *message) error {
		l := readLetter(m)
		switch l.stage {
		case bridgeStage:
			a.bridgeLetter(m, &l)
		case decoderStage, writerStage:
			a.outcomeLetter(m, &l)
		}
		return nil
	})
}

// letter is what the headers of a dead letter say.
type letter struct {
	stage, reason string
	id            event.ID
	hasID         bool
	point         int32 // 0: none
}

func (l *letter) isPart() bool { return l.point != 0 || l.reason == unknownLabel }

// kind is the flag of a letter of decoder or writer.
func (l *letter) kind() flags {
	switch {
	case l.stage == writerStage && l.isPart():
		return writerPart
	case l.stage == writerStage:
		return refusedByWriter
	case l.isPart():
		return refusedInPart
	}
	return refusedByDecoder
}

func readLetter(m *message) letter {
	l := letter{stage: value(m.header, deadletter.HeaderStage), reason: value(m.header, deadletter.HeaderReason)}
	if l.stage == "" {
		l.stage = token(m.subject, 2)
	}
	if l.reason == "" {
		l.reason = token(m.subject, 3)
	}
	id, err := event.ParseID(value(m.header, event.HeaderID))
	l.id, l.hasID = id, err == nil
	if point, err := strconv.ParseInt(value(m.header, deadletter.HeaderDataPoint), 10, 32); err == nil {
		l.point = int32(point)
	}
	return l
}

func (a *audit) bridgeLetter(m *message, l *letter) {
	if m.time.Before(a.cut.since) || m.time.After(a.cut.until) {
		return
	}
	device := a.book.device(token(m.subject, 4))
	a.book.devices[device].Received++
	stage := a.stage(bridgeStage)
	stage.Received++
	var r *record
	added := true
	if l.hasID {
		r, added = a.book.add(l.id)
	} else {
		r = a.book.addNameless(l.id)
	}
	if !added {
		a.book.devices[device].Duplicates++
		stage.Duplicates++
		return
	}
	r.device, r.flags, r.cause = device, refusedByBridge, a.book.cause(l.stage, l.reason)
}

func (a *audit) outcomeLetter(m *message, l *letter) {
	r := a.book.find(l.id)
	if !l.hasID || r == nil {
		if a.cut.covers(received(m), m.time) {
			a.unexplained(l.id, deadletter.Stream, m.sequence)
		}
		return
	}
	c := a.book.cause(l.stage, l.reason)
	if l.isPart() {
		a.book.causes[c].Parts++
	}
	kind := l.kind()
	if kind > r.flags&(refusedByWriter|writerPart|refusedByDecoder|refusedInPart) {
		r.cause = c // of several letters the one that decides, see audit.fate
	}
	r.flags |= kind
	switch kind {
	case writerPart:
		a.book.parts[part{l.id, l.point}] = struct{}{}
	case refusedInPart:
		switch value(m.header, deadletter.HeaderDecoded) {
		case "":
		case "0":
			r.flags |= refusedByDecoder
		default:
			r.flags |= decodedInPart
		}
	}
}

func (a *audit) unexplained(id event.ID, stream string, sequence uint64) {
	u := &a.report.Unexplained
	u.Total++
	if len(u.Listed) < a.options.MaxListed {
		u.Listed = append(u.Listed, Outcome{ID: id, Stream: stream, Sequence: sequence})
	}
}

// bridgeIDs calls visit with the id of every message that the bridge has ever
// refused.
func (a *audit) bridgeIDs(ctx context.Context, visit func(event.ID) error) error {
	s := scan{stream: deadletter.Stream, subjects: []string{"f2.dead." + bridgeStage + ".>"}, headersOnly: true}
	return a.read(ctx, s, func(m *message) error { return visit(readLetter(m).id) })
}

// rawIDs calls visit with the id of every message that RAW holds.
func (a *audit) rawIDs(ctx context.Context, visit func(event.ID) error) error {
	raw, err := a.js.Stream(ctx, rawStream)
	if err != nil {
		return err
	}
	return a.read(ctx, scan{stream: rawStream, headersOnly: true}, func(m *message) error {
		id, err := rawID(ctx, raw, m)
		if err != nil {
			return err
		}
		return visit(id)
	})
}
