package ledger

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// command is what is known of one command.
type command struct {
	issued  time.Time       // when COMMANDS stored it; zero: it vanished from there
	subject string          // after its prefix
	outcome outcome.Outcome // the last; empty: none
}

// readCommands counts commands by their outcomes. Commands are few: all of the
// interval are held.
func (a *audit) readCommands(ctx context.Context) error {
	found, err := stream.Find(ctx, a.js, stream.Commands)
	if err != nil || found == nil {
		return err
	}
	commands := make(map[uint64]*command)
	var holes []uint64
	next := uint64(0)
	s := stream.Scan{Stream: stream.Commands, Subjects: a.subjects("f2.command.", ".>"), Since: a.cut.since, HeadersOnly: true}
	err = a.read(ctx, s, func(m *stream.Message) error {
		if m.Time.After(a.cut.until) {
			return stream.ErrStop
		}
		for ; next > 0 && next < m.Sequence && a.options.MAC == ""; next++ {
			holes = append(holes, next)
		}
		next = m.Sequence + 1
		commands[m.Sequence] = &command{issued: m.Time, subject: strings.Clone(m.Subject[len("f2.command."):])}
		return nil
	})
	if err != nil || len(commands) == 0 {
		return err
	}
	for _, sequence := range holes {
		commands[sequence] = new(command)
	}
	// Before RESULT, which has the outcome of what the bridge has acknowledged by now.
	bridge, err := stream.FindConsumer(ctx, a.js, stream.Commands, stream.StageBridge)
	if err != nil {
		return err
	}
	floor := uint64(0)
	if bridge != nil {
		floor = bridge.AckFloor.Stream
	}
	kept, err := a.readResults(ctx, commands)
	if err != nil {
		return err
	}
	a.countCommands(commands, floor, kept)
	return nil
}

// results are what RESULT keeps.
type results struct {
	since   time.Time // what was stored before may be gone; zero: nothing is
	most    uint64    // messages that are kept of a subject; 0: all
	subject map[string]*resultsOf
}

type resultsOf struct{ first, messages uint64 }

// evicted reports whether RESULT may have had an outcome of the command that it no
// longer keeps.
func (r *results) evicted(sequence uint64, c *command) bool {
	if c.issued.Before(r.since) {
		return true
	}
	of := r.subject[c.subject]
	return of != nil && r.most > 0 && of.messages >= r.most && of.first > sequence
}

// readResults notes the outcomes.
func (a *audit) readResults(ctx context.Context, commands map[uint64]*command) (*results, error) {
	kept := &results{subject: make(map[string]*resultsOf)}
	info, err := stream.Find(ctx, a.js, stream.Result)
	if err != nil || info == nil {
		return kept, err
	}
	kept.most = uint64(max(info.Config.MaxMsgsPerSubject, 0))
	if info.State.FirstSeq > 1 && info.State.Msgs > 0 {
		kept.since = info.State.FirstTime
	}
	s := stream.Scan{Stream: stream.Result, Subjects: a.subjects("f2.result.", ".>")}
	err = a.read(ctx, s, func(m *stream.Message) error {
		r, err := outcome.Parse(m.Header, m.Data)
		if err != nil {
			return nil //nolint:nilerr // not the bridge's
		}
		kept.add(m.Subject[len("f2.result."):], r.Sequence)
		// If COMMANDS was deleted and recreated, it counts from 1 again.
		if c := commands[r.Sequence]; c != nil && (c.issued.IsZero() || r.Issued.Equal(c.issued)) && r.Outcome != outcome.Sent {
			c.outcome = r.Outcome // of unknown and a later confirmed the second counts
		}
		return nil
	})
	return kept, err
}

func (r *results) add(subject string, sequence uint64) {
	of := r.subject[subject]
	if of == nil {
		of = &resultsOf{first: sequence}
		r.subject[strings.Clone(subject)] = of
	}
	of.messages++
}

func (a *audit) countCommands(commands map[uint64]*command, floor uint64, kept *results) {
	report := &a.report.Commands
	report.Sent = uint64(len(commands))
	for sequence, c := range commands {
		switch c.outcome {
		case outcome.Refused:
			report.Refused++
			continue
		case outcome.Expired:
			report.Expired++
			continue
		case outcome.Delivered:
			report.Delivered++
			continue
		case outcome.Confirmed:
			report.Confirmed++
			continue
		case outcome.Unknown:
			report.Unknown++
			continue
		}
		switch {
		case sequence > floor && !c.issued.IsZero():
			report.UnderWay++
		case kept.evicted(sequence, c):
			report.NotKept++
		default:
			report.Missing++
			report.MissingSequences = append(report.MissingSequences, sequence)
		}
	}
	slices.Sort(report.MissingSequences)
	report.MissingSequences = slices.Clip(report.MissingSequences[:min(len(report.MissingSequences), a.options.MaxListed)])
}
