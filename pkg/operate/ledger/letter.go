package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// readLetters notes what each stage refused. What the bridge refused was never
// on RAW, and counts as received by its letter.
//
// Each letter says how many there were before it of its subject. From the difference
// to the one before it, it is known how many of those are no longer kept, and since a
// stage stores them in RAW's order, but for those of messages that came late, between which
// places of RAW their messages are.
func (a *audit) readLetters(ctx context.Context) error {
	before := make(map[string]predecessor)
	s := stream.Scan{Stream: stream.DeadLetter, Subjects: a.subjects("f2.dead.*.*.", ""), HeadersOnly: true}
	return a.readOutcomes(ctx, s, func(m *stream.Message) error {
		l := deadletter.Parse(m)
		p := before[m.Subject]
		gone := p.gone(&l)
		before[m.Subject] = p.next(&l)
		switch l.Stage {
		case stream.StageBridge:
			a.bridgeLetter(&l, gone)
		case stream.StageDecoder, stream.StageWriter:
			a.missLetters(&l, &p, gone)
			if !l.Removed {
				a.outcomeLetter(&l)
			}
		}
		return nil
	})
}

// predecessor is the letter before one of the same subject.
type predecessor struct {
	count  uint64
	newest event.ID // of all before
}

// gone is how many letters between p and l are no longer kept. The marker of a
// removed letter is not a letter.
func (p *predecessor) gone(l *deadletter.Stored) uint64 {
	switch {
	case l.Removed && l.Count >= p.count:
		return l.Count - p.count
	case l.Count > p.count:
		return l.Count - p.count - 1
	}
	return 0 // counted from the beginning again, or not at all
}

func (p *predecessor) next(l *deadletter.Stored) predecessor {
	n := predecessor{count: l.Count, newest: p.newest}
	if n.newest.Incarnation() != l.ID.Incarnation() || n.newest.Sequence() < l.ID.Sequence() {
		n.newest = l.ID
	}
	return n
}

// notKept are letters that are no longer kept, of messages between two places.
type notKept struct {
	first, last uint64
	letters     uint64
	cause       uint16
}

type notKeptKey struct {
	stage  string
	device uint32
}

// missLetters books letters between p and l that are no longer kept.
func (a *audit) missLetters(l *deadletter.Stored, p *predecessor, gone uint64) {
	if gone == 0 || l.ID.Incarnation() != a.cut.incarnation {
		return
	}
	span := notKept{last: l.ID.Sequence(), letters: gone, cause: a.book.cause(l.Stage, l.Reason)}
	if p.newest.Incarnation() == a.cut.incarnation {
		span.first, span.last = p.newest.Sequence(), max(span.last, p.newest.Sequence())
	}
	key := notKeptKey{l.Stage, a.book.device(macOf(l))}
	a.notKept[key] = append(a.notKept[key], span)
}

// explain reports whether a letter of the stage that is no longer kept can be the
// message's, and uses it up.
func (a *audit) explain(stage string, r *record) bool {
	spans := a.notKept[notKeptKey{stage, r.device}]
	i := slices.IndexFunc(spans, func(n notKept) bool { return n.letters > 0 && n.first <= r.sequence && r.sequence <= n.last })
	if i < 0 {
		return false
	}
	spans[i].letters--
	r.cause = spans[i].cause
	return true
}

func macOf(l *deadletter.Stored) string {
	if l.MAC == "" {
		return unknown
	}
	return string(l.MAC)
}

// takesBridge reports whether a letter of the bridge is of the interval.
func (a *audit) takesBridge(l *deadletter.Stored) bool {
	return a.cut.holds(l.Stored) && (a.options.MAC == "" || a.options.MAC == l.MAC)
}

// bridgeLetter counts a letter of the bridge, and those before it that are no longer
// kept: when those were is not known, only that it was not later.
func (a *audit) bridgeLetter(l *deadletter.Stored, gone uint64) {
	if !a.takesBridge(l) {
		return
	}
	n := gone + 1
	if l.Removed {
		n = gone
	}
	device := &a.book.devices[a.book.device(macOf(l))]
	stage := a.stage(stream.StageBridge)
	device.Received += n
	stage.Received += n
	switch l.Reason {
	case deadletter.ReasonCopy:
		device.Copies += n
		stage.Copies += n
		return
	case deadletter.ReasonRetained:
		device.Retained += n
		stage.Retained += n
		return
	}
	device.DeadLettered += n
	stage.DeadLettered += n
	c := &a.book.causes[a.book.cause(l.Stage, l.Reason)]
	c.Messages += n
	c.NotKept += gone
	if a.claims.any() {
		a.bridgeNotKept += gone
		if !l.Removed {
			a.claims.receive(l.Digest, &a.report.Acknowledged)
		}
	}
}

// place returns the record of an outcome. Where there is none it says whether the
// outcome should have one.
func (a *audit) place(id event.ID, received, stored time.Time) (r *record, unexplained bool) {
	switch {
	case id == (event.ID{}):
		return nil, a.cut.holds(stored)
	case id.Incarnation() != a.cut.incarnation:
		// Of a RAW that was deleted: it was received before this one was made.
		return nil, a.cut.holds(stored) && received.After(a.cut.created)
	case !a.cut.takes(id.Sequence()):
		return nil, id.Sequence() > a.rawEnd && a.cut.holds(stored)
	}
	if r = a.book.find(id.Sequence()); r != nil {
		return r, false
	}
	if a.book.inHole(id.Sequence()) {
		a.report.Vanished.Outcomes++
		return nil, false
	}
	return nil, true
}

// kind is the flag of a letter of decoder or writer.
func kind(l *deadletter.Stored) flags {
	switch {
	case l.Stage == stream.StageWriter && l.Part:
		return writerPart
	case l.Stage == stream.StageWriter:
		return refusedByWriter
	case l.Part:
		return refusedInPart
	}
	return refusedByDecoder
}

func (a *audit) outcomeLetter(l *deadletter.Stored) {
	r, unexplained := a.place(l.ID, l.Received, l.Stored)
	if r != nil && a.book.devices[r.device].MAC != topic.MAC(macOf(l)) {
		r, unexplained = nil, true
	}
	if unexplained {
		a.unexplained(l.ID, stream.DeadLetter, l.Sequence)
	}
	if r == nil {
		return
	}
	c := a.book.cause(l.Stage, l.Reason)
	if l.Part {
		a.book.causes[c].Parts++
	}
	k := kind(l)
	if k > r.flags&(refusedByWriter|writerPart|refusedByDecoder|refusedInPart) {
		r.cause = c // of several letters the one that decides, see audit.fate
	}
	r.flags |= k
	switch {
	case k == writerPart:
		a.book.parts[part{r.sequence, l.DataPointID}] = struct{}{}
	case k == refusedInPart && l.Decoded > 0:
		r.flags |= decodedInPart
	case k == refusedInPart:
		r.flags |= refusedByDecoder
	}
}

func (a *audit) unexplained(id event.ID, stream string, sequence uint64) {
	u := &a.report.Unexplained
	u.Total++
	if len(u.Listed) < a.options.MaxListed {
		u.Listed = append(u.Listed, Successor{ID: id, Stream: stream, Sequence: sequence})
	}
}
