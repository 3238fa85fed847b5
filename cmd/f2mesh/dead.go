package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/operate/progress"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/services/decoder"
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
	Stage  string             `help:"Only what this stage refused: bridge, decoder or writer." enum:",bridge,decoder,writer" default:""`
	Reason string             `help:"Only letters with this reason."`
	MAC    string             `help:"Only letters of this controller, or unknown for those without one."`
	Since  *plain.PointInTime `help:"Only letters since this time: RFC 3339, a date, or an age (90m, 1d12h)."`
	Until  *plain.PointInTime `help:"Only letters until this time."`
}

func (f *deadFilter) filter() (deadletter.Filter, error) {
	out, err := deadletter.NewFilter(f.Stage, f.Reason, f.MAC)
	if f.Since != nil {
		out.Since = f.Since.Time
	}
	if f.Until != nil {
		out.Until = f.Until.Time
	}
	return out, err
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
		lines, err := replay.ListLetters(ctx, m.JetStream, filter)
		if err != nil {
			return err
		}
		return printAs(c.JSON, lines)
	}
	groups, err := replay.ListGroups(ctx, m.JetStream, filter)
	if err != nil {
		return err
	}
	return printAs(c.JSON, groups)
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
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	r, err := decoder.OpenReplay(ctx, m, log)
	if err != nil {
		return err
	}
	defer r.Close()
	bar := progress.Count("letters")
	outcome, err := r.Replay(ctx, replay.Letters{Filter: filter, Replace: c.Replace, DryRun: c.DryRun, Progress: bar.Set})
	bar.Finish()
	return errors.Join(err, printAs(c.JSON, outcome))
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
		groups, err := replay.ListGroups(ctx, m.JetStream, filter)
		if err == nil {
			_, err = groups.WriteTo(os.Stdout)
		}
		if err == nil {
			fmt.Printf("%d letters would be removed; --yes removes them\n", groups.Kept())
		}
		return err
	}
	bar := progress.Count("letters")
	n, err := replay.Purge(ctx, m.JetStream, filter, bar.Set)
	bar.Finish()
	fmt.Printf("%d letters removed\n", n)
	return err
}
