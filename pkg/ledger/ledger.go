// Package ledger proves, for an interval, that every message that was received
// is written, dead-lettered, a duplicate or pending (design 5), for each stage
// and each device. It takes no service's word for it: the ids on RAW are set
// against those on DECODED and DEAD_LETTER, and the values on DECODED against
// the rows of the tables. It changes nothing, neither streams nor tables.
//
// What it cannot see: a message that never reached RAW or DEAD_LETTER, unless
// somebody says that it was acknowledged (Options.Acknowledged); a copy that
// RAW refused by its Nats-Msg-Id; and whether the decoded values are right. A
// row that the tables' own retention has dropped counts as missing.
//
// An audit holds about 150 bytes for each message of the interval. It reads
// with one goroutine and asks the tables with a second; each owns its fields of
// a record, and nothing is locked.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// The streams that are read, beside deadletter.Stream.
const (
	rawStream     = "RAW"
	decodedStream = "DECODED"
)

// Names of the stages in the report and in dead letters. Each but the bridge is
// the durable consumer of the same name on the stream that it reads.
const (
	bridgeStage  = "bridge"
	decoderStage = "decoder"
	writerStage  = "writer"
)

// Options say what to audit. The zero value audits everything that RAW holds.
type Options struct {
	// Since and Until bound when RAW stored a message, or DEAD_LETTER one that
	// the bridge refused, by the server's clock. Both are included. Zero values
	// mean from the beginning and until now. What became of a message counts
	// also if that was after Until.
	Since, Until time.Time
	// MAC limits the audit to one controller; empty is all. What a stage refused
	// without knowing whose it is, is then left out.
	MAC topic.MAC
	// Acknowledged names messages that somebody claims were acknowledged to
	// their sender, one event id of 32 hex digits a line: each must have been
	// received. Nil claims nothing.
	Acknowledged io.Reader
	// MaxListed bounds each list of the report, not its totals; 0 means 100.
	MaxListed int
	// Progress is told, about every thousand messages, how many have been read
	// of how many, from one goroutine. The total is an estimate that may still
	// change.
	Progress func(done, total uint64)
}

// Database is a connection or pool on the tables, of a role that may SELECT
// from them: *pgx.Conn and *pgxpool.Pool are.
type Database interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// audit is the state of one Audit.
type audit struct {
	js      jetstream.JetStream
	db      Database
	options Options
	cut     cut
	book    *book
	report  *Report

	done, total uint64 // messages, for Options.Progress
}

// Audit reads the streams through js, whose user must be allowed to create
// consumers, and the tables through db. An error means that it could not be
// finished, never that something is missing: that is in the report.
func Audit(ctx context.Context, js jetstream.JetStream, db Database, options Options) (*Report, error) {
	if options.MaxListed == 0 {
		options.MaxListed = 100
	}
	a := &audit{js: js, db: db, options: options, book: newBook(), report: newReport(options.MAC)}
	// The order makes the cut consistent: what a consumer's position says is
	// done was stored before, and so is found on the streams and in the tables,
	// which are read after it.
	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"taking the interval", a.takeCut},
		{"reading RAW", a.readRaw},
		{"reading consumer positions", a.readPositions},
		{"reading DEAD_LETTER", a.readLetters},
		{"matching acknowledged ids", a.matchAcknowledged},
		{"matching DECODED and the tables", a.matchDecoded},
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
	rawLast      uint64 // last sequence of RAW
	// whole is true if nothing of RAW came before since.
	whole bool
	// complete is a moment before rawLast was read: every message that was
	// received until then is at most rawLast.
	complete time.Time
}

// clockSkew is how far the bridge's clock may be from the server's for the
// search of outcomes without a message.
const clockSkew = 5 * time.Second

// covers tells whether the message of an outcome must be in the interval:
// received is when the bridge says it took it, stored when the outcome was.
func (c *cut) covers(received, stored time.Time) bool {
	return !stored.After(c.until) && !stored.After(c.complete) &&
		(c.whole || !received.Before(c.since.Add(clockSkew)))
}

// takeCut moves the interval's beginning to where all three streams still hold
// everything, and fixes its end. RAW comes last.
func (a *audit) takeCut(ctx context.Context) error {
	a.cut.since, a.cut.until = a.options.Since, a.options.Until
	var raw *jetstream.StreamInfo
	for _, name := range []string{deadletter.Stream, decodedStream, rawStream} {
		s, err := a.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) && name != rawStream {
			continue // nothing has ever been there
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		raw = s.CachedInfo()
		if from := complete(raw); from.After(a.cut.since) {
			a.report.Limits = append(a.report.Limits, Limit{Stream: name, From: from})
		}
		if name != rawStream {
			a.cut.complete = raw.TimeStamp
		}
	}
	for _, l := range a.report.Limits {
		if l.From.After(a.cut.since) {
			a.cut.since = l.From
		}
	}
	if a.cut.until.IsZero() || a.cut.until.After(raw.TimeStamp) {
		a.cut.until = raw.TimeStamp
	}
	a.cut.rawLast = raw.State.LastSeq
	a.cut.whole = raw.State.FirstSeq <= 1 && !a.cut.since.After(raw.State.FirstTime)
	a.report.AskedSince, a.report.Since, a.report.Until = a.options.Since, a.cut.since, a.cut.until
	return nil
}

// complete tells from when on a stream holds all that it was given: the zero
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
	if age := info.Config.MaxAge; age > 0 {
		expiring := info.TimeStamp.Add(min(5*time.Minute, age/10) - age)
		if state.FirstTime.Before(expiring) && from.Before(expiring) {
			from = expiring
		}
	}
	return from
}

func (a *audit) progress(done uint64) {
	a.done += done
	if a.options.Progress != nil {
		a.options.Progress(a.done, max(a.done, a.total))
	}
}
