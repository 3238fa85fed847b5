// Package ledger accounts, for an interval, for every message that the broker
// delivered: it is written, dead-lettered, a copy that was dropped, a retained
// copy, or pending (design 5), for each stage and each device. It also counts commands
// and their outcomes. It does not rely on what services report: it compares the places in
// RAW with those on DECODED, DEAD_LETTER and PARKED, and the values on DECODED with the
// rows of the tables. It changes neither streams nor tables.
//
// It cannot see a message that the broker did not deliver, unless Options.Acknowledged
// lists it, nor whether the decoded values are right. A row that the tables' own retention
// has dropped counts as missing. Of the dead letters that DEAD_LETTER no longer keeps it knows how many
// there were, of which controller, stage and reason, and between which places in RAW,
// but not of which messages: as many messages without an outcome as there were such
// letters count as dead-lettered, and are reported as such.
//
// An audit holds 32 bytes for each message of the interval, and with
// Options.Acknowledged about 40 for each claim. It reads with one goroutine and asks
// the tables with a second; each owns its fields of a record, and nothing is locked.
package ledger

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/rows"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Options say what to audit. The zero value audits everything that RAW holds.
type Options struct {
	// Since and Until bound when RAW stored a message, DEAD_LETTER one that the
	// bridge refused, or COMMANDS a command, by the server's clock. Both are
	// included. Zero values mean from the beginning and until now. What became of a
	// message counts also if that was after Until.
	Since, Until time.Time
	// MAC limits the audit to one controller; empty is all. What a stage refused
	// without knowing whose it is, is then left out, and what vanished from RAW.
	MAC topic.MAC
	// Acknowledged are messages that were acknowledged to their sender, according to
	// the caller: one event.Digest of 32 hex digits a line, as often as they were: each
	// must have been received. Nil claims nothing.
	Acknowledged io.Reader
	// MaxListed bounds each list of the report, not its totals; 0 means 100.
	MaxListed int
	// Progress is called about every thousand messages, from one goroutine, with the
	// number of messages that were read and an estimate of their total.
	Progress func(done, total uint64)
}

// audit is the state of one Audit.
type audit struct {
	js      jetstream.JetStream
	db      rows.Querier
	options Options
	cut     cut
	book    *book
	claims  claims
	// rawEnd is RAW's last sequence as far as it is known: the outcomes that are
	// being read are of nothing after it.
	rawEnd uint64
	// notKept are letters that are no longer kept, by stage and device.
	notKept map[notKeptKey][]notKept
	// bridgeNotKept are the bridge's letters of refused messages that are no longer kept.
	bridgeNotKept uint64
	// replaced are the events that were decoded once more, by their sequence in RAW,
	// with the last of their sequences on DECODED. The reading goroutine owns it, and
	// the probe changedEvents.
	replaced      map[uint64]uint64
	changedEvents []changedEvent
	report        *Report

	done, total uint64 // messages, for Options.Progress
}

// Audit reads the streams through js, whose user must be allowed to create
// consumers, and the tables through db. An error means that it could not be
// finished, never that something is missing: that is in the report.
func Audit(ctx context.Context, js jetstream.JetStream, db rows.Querier, options Options) (*Report, error) {
	if options.MaxListed == 0 {
		options.MaxListed = 100
	}
	a := &audit{
		js: js, db: db, options: options, book: newBook(),
		notKept: make(map[notKeptKey][]notKept), replaced: make(map[uint64]uint64), report: newReport(options.MAC),
	}
	// The order makes the cut consistent: what a consumer's position says is
	// done was stored before, and so is found on the streams and in the tables,
	// which are read after it. What leaves PARKED was stored elsewhere before.
	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"reading the acknowledged digests", a.readClaims},
		{"taking the interval", a.takeCut},
		{"reading RAW", a.readRaw},
		{"reading consumer positions", a.readPositions},
		{"reading PARKED", a.readParked},
		{"reading DEAD_LETTER", a.readLetters},
		{"looking for acknowledged messages outside the interval", a.matchElsewhere},
		{"matching DECODED and the tables", a.matchDecoded},
		{"reading COMMANDS and RESULT", a.readCommands},
	} {
		if err := step.run(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	a.settle()
	return a.report, nil
}

// cut is the interval that is audited.
type cut struct {
	since, until time.Time
	incarnation  uint64    // RAW's, see event.PlaceID
	created      time.Time // RAW
	first, last  uint64    // sequences of RAW; with nothing in the interval first > last
}

// takes reports whether the interval includes the message at sequence.
func (c *cut) takes(sequence uint64) bool { return c.first <= sequence && sequence <= c.last }

// holds reports whether t is in the interval.
func (c *cut) holds(t time.Time) bool { return !t.Before(c.since) && !t.After(c.until) }

// takeCut moves the interval's beginning to where the streams still hold everything, and
// fixes its end.
func (a *audit) takeCut(ctx context.Context) error {
	a.cut.since, a.cut.until = a.options.Since, a.options.Until
	for _, name := range []string{stream.DeadLetter, stream.Decoded} {
		info, err := stream.Find(ctx, a.js, name)
		if err != nil {
			return err
		}
		if info != nil { // else nothing has ever been there
			a.limit(info)
		}
	}
	raw, err := a.raw(ctx)
	if err != nil {
		return err
	}
	a.limit(raw)
	toEnd := a.cut.until.IsZero() || !a.cut.until.Before(raw.TimeStamp)
	if toEnd {
		a.cut.until = raw.TimeStamp
	}
	a.cut.incarnation = stream.Incarnation(raw)
	a.cut.created = time.Unix(0, int64(a.cut.incarnation)) //nolint:gosec // nanoseconds since 1970
	a.report.AskedSince, a.report.Since, a.report.Until = a.options.Since, a.cut.since, a.cut.until
	return a.places(ctx, &raw.State, toEnd)
}

// limit moves the interval's beginning to where a stream still holds everything.
func (a *audit) limit(info *jetstream.StreamInfo) {
	from := complete(info)
	if info.Config.Name == stream.DeadLetter {
		from = lettersFrom(info)
	}
	if from.After(a.options.Since) {
		a.report.Limits = append(a.report.Limits, HeldSince{Stream: info.Config.Name, From: from})
	}
	if from.After(a.cut.since) {
		a.cut.since = from
	}
}

// raw returns RAW's configuration and state.
func (a *audit) raw(ctx context.Context) (*jetstream.StreamInfo, error) {
	raw, err := stream.Find(ctx, a.js, stream.Raw)
	if err == nil && raw == nil {
		err = fmt.Errorf("stream %s: %w", stream.Raw, jetstream.ErrStreamNotFound)
	}
	return raw, err
}

// places finds the interval's sequences.
func (a *audit) places(ctx context.Context, state *jetstream.StreamState, toEnd bool) error {
	var err error
	a.cut.first, a.cut.last = max(state.FirstSeq, 1), state.LastSeq
	if !a.cut.since.IsZero() {
		if a.cut.first, err = a.firstSince(ctx, a.cut.since, state.LastSeq+1); err != nil {
			return err
		}
	}
	if !toEnd {
		var behind uint64
		if behind, err = a.firstSince(ctx, a.cut.until.Add(1), state.LastSeq+1); err == nil {
			a.cut.last = behind - 1
		}
	}
	return err
}

// firstSince is RAW's first sequence that was stored at t or later, or none.
func (a *audit) firstSince(ctx context.Context, t time.Time, none uint64) (uint64, error) {
	first := none
	s := stream.Scan{Stream: stream.Raw, Since: t, HeadersOnly: true}
	err := s.Read(ctx, a.js, func(m *stream.Message) error {
		first = min(none, m.Sequence)
		return stream.ErrStop
	})
	return first, err
}

// complete returns since when a stream holds all that it was given: the zero
// time if it has never removed anything from its beginning. What may expire
// while the audit runs is taken as gone.
func complete(info *jetstream.StreamInfo) time.Time {
	var from time.Time
	state := &info.State
	switch {
	case state.LastSeq == 0:
		return from
	case state.Msgs == 0:
		return state.LastTime.Add(1)
	case state.FirstSeq > 1:
		from = state.FirstTime
	}
	if expiring := expiring(info); state.FirstTime.Before(expiring) && from.Before(expiring) {
		from = expiring
	}
	return from
}

// expiring returns the age up to which the stream may remove messages while the audit runs.
func expiring(info *jetstream.StreamInfo) time.Time {
	age := info.Config.MaxAge
	if age == 0 {
		return time.Time{}
	}
	return info.TimeStamp.Add(min(5*time.Minute, age/10) - age)
}

// lettersFrom returns since when the letters of DEAD_LETTER, or the letters that
// count them, are there. That the first sequences are gone is normal: each
// subject keeps its last.
func lettersFrom(info *jetstream.StreamInfo) time.Time {
	state := &info.State
	if limit := info.Config.MaxBytes; limit > 0 && state.Bytes > uint64(limit)/100*95 {
		return state.FirstTime
	}
	if expiring := expiring(info); state.LastSeq > 0 && state.FirstTime.Before(expiring) {
		return expiring
	}
	return time.Time{}
}

// read reads a stream with its progress counted.
func (a *audit) read(ctx context.Context, s stream.Scan, visit func(*stream.Message) error) error {
	begin := s.Begin
	s.Begin = func(messages uint64) {
		a.total = a.done + messages
		if begin != nil {
			begin(messages)
		}
	}
	s.Progress = a.progress
	return s.Read(ctx, a.js, visit)
}

func (a *audit) progress(done uint64) {
	a.done += done
	if a.options.Progress != nil {
		a.options.Progress(a.done, max(a.done, a.total))
	}
}

// subjects returns the filter for the MAC that is audited, with its place in the
// pattern, or none for all.
func (a *audit) subjects(before, after string) []string {
	if a.options.MAC == "" {
		return nil
	}
	return []string{before + string(a.options.MAC) + after}
}
