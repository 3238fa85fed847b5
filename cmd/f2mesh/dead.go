package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// deadCommands work with what stages refused.
type deadCommands struct {
	List   deadListCommand   `cmd:"" help:"List dead letters by stage, reason and controller."`
	Show   deadShowCommand   `cmd:"" help:"Show one dead letter: where and why the message was refused, and what to do."`
	Replay deadReplayCommand `cmd:"" help:"Process dead letters again, after the cause is fixed."`
	Purge  deadPurgeCommand  `cmd:"" help:"Remove dead letters. Without --yes, only show which."`
}

// deadFilter chooses dead letters.
type deadFilter struct {
	Stage  string       `help:"Only what this stage refused: bridge, decoder or writer." enum:",bridge,decoder,writer" default:""`
	Reason string       `help:"Only letters with this reason."`
	MAC    string       `help:"Only letters of this controller, or unknown for those without one."`
	Since  *pointInTime `help:"Only letters since this time: RFC 3339, a date, or an age (90m, 1d12h)."`
	Until  *pointInTime `help:"Only letters until this time."`
}

func (f *deadFilter) filter() (out deadletter.Filter, err error) {
	out = deadletter.Filter{Stage: f.Stage, Reason: f.Reason}
	if f.Reason != "" && !isToken(f.Reason) {
		return out, fmt.Errorf("%q is not a reason: f2mesh dead list shows those there are", f.Reason)
	}
	if f.MAC == "unknown" {
		out.Unknown = true
	} else if f.MAC != "" {
		if out.MAC, err = topic.ParseMAC(f.MAC); err != nil {
			return out, fmt.Errorf("%q is not a MAC address: 12 hex digits, bare or with - or : between bytes", f.MAC)
		}
	}
	if f.Since != nil {
		out.Since = f.Since.Time
	}
	if f.Until != nil {
		out.Until = f.Until.Time
	}
	return out, nil
}

// isToken tells whether s can be a reason.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

type deadListCommand struct {
	deadFilter
	Letters bool `help:"List every letter instead of totals."`
	JSON    bool `help:"Print JSON."`
}

// Run prints the groups of letters, or each.
func (c *deadListCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	if c.Letters {
		return listLetters(ctx, m.JetStream, filter, os.Stdout, c.JSON)
	}
	groups, err := filter.Groups(ctx, m.JetStream)
	if err != nil {
		return fmt.Errorf("reading dead letters: %w", err)
	}
	if c.JSON {
		return printJSON(groups)
	}
	return printGroups(os.Stdout, groups)
}

func macText(mac topic.MAC) string {
	if mac == "" {
		return "unknown"
	}
	return string(mac)
}

func printGroups(out io.Writer, groups []deadletter.Group) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "STAGE\tREASON\tCONTROLLER\tKEPT\tTOTAL\tLAST\tLAST DETAIL")
	for _, g := range groups {
		last := "-"
		if !g.Last.IsZero() {
			last = g.Last.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n", plain.Text(g.Stage), plain.Text(g.Reason), macText(g.MAC), g.Kept, g.Total, last, plain.Text(shorten(g.Detail)))
	}
	return w.Flush()
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

// letterLine is what a list says of a letter.
type letterLine struct {
	Sequence uint64    `json:"sequence"`
	Stage    string    `json:"stage"`
	Reason   string    `json:"reason"`
	MAC      topic.MAC `json:"mac,omitempty"`
	Time     time.Time `json:"time"`
	RAW      uint64    `json:"raw_sequence,omitempty"`
	Point    int32     `json:"datapoint_id,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

func listLetters(ctx context.Context, js jetstream.JetStream, filter deadletter.Filter, out io.Writer, asJSON bool) error {
	filter.HeadersOnly = true
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	lines := []letterLine{}
	if !asJSON {
		fmt.Fprintln(w, "LETTER\tSTAGE\tREASON\tCONTROLLER\tTIME\tDETAIL")
	}
	err := filter.Read(ctx, js, func(l deadletter.Stored) error {
		switch {
		case l.Removed:
		case asJSON:
			lines = append(lines, letterLine{l.Sequence, l.Stage, l.Reason, l.MAC, l.Stored, l.ID.Sequence(), l.DataPointID, l.Detail})
		default:
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", l.Sequence, plain.Text(l.Stage), plain.Text(l.Reason), macText(l.MAC),
				l.Stored.UTC().Format(time.RFC3339), plain.Text(shorten(l.Detail)))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading dead letters: %w", err)
	}
	if asJSON {
		return printJSON(lines)
	}
	return w.Flush()
}

type deadReplayCommand struct {
	deadFilter
	Replace bool `help:"Replace existing rows with the new values. The previous values are kept in measurement_history."`
	DryRun  bool `help:"Only show the result for each letter."`
	JSON    bool `help:"Print JSON."`
}

// Run replays the letters and prints what became of them.
func (c *deadReplayCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	m, err := openReplay(ctx, g, log)
	if err != nil {
		return err
	}
	defer m.close()
	progress, end := countOnBar("letters")
	outcome, err := m.mesh.Replay(ctx, replay.Letters{Filter: filter, Replace: c.Replace, DryRun: c.DryRun, Progress: progress})
	end()
	if outcome != nil && c.JSON {
		return errors.Join(err, printJSON(outcome))
	}
	if outcome != nil {
		printOutcome(os.Stdout, outcome, c.DryRun)
	}
	return err
}

func printOutcome(out io.Writer, o *replay.Outcome, dryRun bool) {
	accepted := "accepted and removed"
	if dryRun {
		accepted = "would be accepted"
	}
	fmt.Fprintf(out, "letters %d: %s %d\n", o.Letters, accepted, o.Accepted)
	for _, reason := range slices.Sorted(maps.Keys(o.Refused)) {
		fmt.Fprintf(out, "  still refused, %s: %d\n", plain.Text(reason), o.Refused[reason])
	}
	say := func(n uint64, format string) {
		if n > 0 {
			fmt.Fprintf(out, "  "+format+"\n", n)
		}
	}
	say(o.NotWritten, "not written: %d. They decode, but the writer did not write the rows: f2mesh dead list --stage writer says why")
	say(o.Trimmed, "gone from RAW: %d. Their messages are too old")
	say(o.Cut, "incomplete: %d. The letters hold only the beginning of the payload")
	say(o.NotKept, "no longer kept: %d. DEAD_LETTER keeps the last 100 of each stage, reason and controller: "+
		"f2mesh redecode --from TIME --to TIME decodes all messages of RAW, those too")
}

type deadPurgeCommand struct {
	deadFilter
	Yes bool `help:"Remove them."`
}

// Run removes letters, or says which it would. The counts stay, for the ledger.
func (c *deadPurgeCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	if !c.Yes {
		groups, err := filter.Groups(ctx, m.JetStream)
		if err != nil {
			return fmt.Errorf("reading dead letters: %w", err)
		}
		if err := printGroups(os.Stdout, groups); err != nil {
			return err
		}
		var n uint64
		for i := range groups {
			n += groups[i].Kept
		}
		fmt.Printf("%d letters would be removed; --yes removes them\n", n)
		return nil
	}
	n, err := purge(ctx, m.JetStream, filter)
	fmt.Printf("%d letters removed\n", n)
	return err
}

// purge removes the letters in portions, so that a break leaves whole ones.
func purge(ctx context.Context, js jetstream.JetStream, filter deadletter.Filter) (removed int, err error) {
	const portion = 1000
	filter.HeadersOnly = true
	var letters []deadletter.Stored
	err = filter.Read(ctx, js, func(l deadletter.Stored) error {
		if !l.Removed {
			l.Detail, l.Topic, l.Member = "", "", ""
			letters = append(letters, l)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("reading dead letters: %w", err)
	}
	progress, end := countOnBar("letters")
	defer end()
	for part := range slices.Chunk(letters, portion) {
		if err := deadletter.Remove(ctx, js, part); err != nil {
			return removed, err
		}
		removed += len(part)
		progress(uint64(removed), uint64(len(letters))) //nolint:gosec // not negative
	}
	return removed, nil
}

// countOnBar shows progress where people look at it.
func countOnBar(what string) (progress func(done, total uint64), end func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func(uint64, uint64) {}, func() {}
	}
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	return func(done, total uint64) {
		bar.ChangeMax64(int64(total)) //nolint:gosec // a message count
		_ = bar.Set64(int64(done))    //nolint:gosec // a message count
	}, func() { _ = bar.Finish() }
}
