package replay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// Groups are dead letters by stage, reason and controller.
type Groups []deadletter.Group

// ListGroups counts the letters that the filter chooses.
func ListGroups(ctx context.Context, js jetstream.JetStream, filter deadletter.Filter) (Groups, error) {
	groups, err := filter.Groups(ctx, js)
	if err != nil {
		return nil, fmt.Errorf("reading dead letters: %w", err)
	}
	return groups, nil
}

// Kept is how many letters are kept.
func (g Groups) Kept() (n uint64) {
	for i := range g {
		n += g[i].Kept
	}
	return n
}

// WriteTo writes a table.
func (g Groups) WriteTo(out io.Writer) (int64, error) {
	return writeTable(out, func(w io.Writer) {
		fmt.Fprint(w, plain.Row("STAGE", "REASON", "CONTROLLER", "KEPT", "TOTAL", "LAST", "LAST DETAIL"))
		for _, one := range g {
			last := "-"
			if !one.Last.IsZero() {
				last = one.Last.UTC().Format(time.RFC3339)
			}
			fmt.Fprint(w, plain.Row(one.Stage, one.Reason, orUnknown(one.MAC), one.Kept, one.Total, last, shorten(one.Detail)))
		}
	})
}

// ListedLetter is what a list says of a letter.
type ListedLetter struct {
	Sequence uint64    `json:"sequence"`
	Stage    string    `json:"stage"`
	Reason   string    `json:"reason"`
	MAC      topic.MAC `json:"mac,omitempty"`
	Time     time.Time `json:"time"`
	RAW      uint64    `json:"raw_sequence,omitempty"`
	Point    int32     `json:"datapoint_id,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// LetterList is dead letters, a line each.
type LetterList []ListedLetter

// ListLetters lists the letters that the filter chooses.
func ListLetters(ctx context.Context, js jetstream.JetStream, filter deadletter.Filter) (LetterList, error) {
	lines := LetterList{}
	err := eachLetter(ctx, js, filter, func(l *deadletter.Stored) {
		lines = append(lines, ListedLetter{l.Sequence, l.Stage, l.Reason, l.MAC, l.Stored, l.ID.Sequence(), l.DataPointID, l.Detail})
	})
	return lines, err
}

// WriteTo writes a table.
func (l LetterList) WriteTo(out io.Writer) (int64, error) {
	return writeTable(out, func(w io.Writer) {
		fmt.Fprint(w, plain.Row("LETTER", "STAGE", "REASON", "CONTROLLER", "TIME", "DETAIL"))
		for _, one := range l {
			fmt.Fprint(w, plain.Row(one.Sequence, one.Stage, one.Reason, orUnknown(one.MAC), one.Time.UTC().Format(time.RFC3339), shorten(one.Detail)))
		}
	})
}

// purgePortion is how many letters are removed together: a break leaves whole ones.
const purgePortion = 1000

// Purge removes the letters that the filter chooses, and returns how many. The counts
// stay, for the ledger.
func Purge(ctx context.Context, js jetstream.JetStream, filter deadletter.Filter, progress func(done, total uint64)) (removed uint64, err error) {
	var letters []deadletter.Stored
	if err := eachLetter(ctx, js, filter, func(l *deadletter.Stored) { letters = append(letters, slim(l)) }); err != nil {
		return 0, err
	}
	for part := range slices.Chunk(letters, purgePortion) {
		if err := deadletter.Remove(ctx, js, part); err != nil {
			return removed, err
		}
		removed += uint64(len(part))
		progress(removed, uint64(len(letters)))
	}
	return removed, nil
}

// eachLetter visits the letters without their payloads, and not what stands for removed
// ones.
func eachLetter(ctx context.Context, js jetstream.JetStream, filter deadletter.Filter, visit func(*deadletter.Stored)) error {
	filter.HeadersOnly = true
	err := filter.Read(ctx, js, func(l deadletter.Stored) error {
		if !l.Removed {
			visit(&l)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading dead letters: %w", err)
	}
	return nil
}

// writeTable aligns the rows that write makes.
func writeTable(out io.Writer, write func(io.Writer)) (int64, error) {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	write(w)
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return b.WriteTo(out)
}

func orUnknown(mac topic.MAC) string {
	if mac == "" {
		return "unknown"
	}
	return string(mac)
}

// shorten fits a detail on a line.
func shorten(s string) string {
	const most = 80
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most-1]) + "…"
}
