package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/operate/progress"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/services/decoder"
)

type redecodeCommand struct {
	From   *plain.PointInTime `help:"Messages stored on RAW since this time: RFC 3339, a date, or an age (90m, 1d12h)." required:""`
	To     *plain.PointInTime `help:"Messages until this time." required:""`
	MAC    string             `help:"Only this controller."`
	DryRun bool               `help:"Only compare the result with the tables."`
	JSON   bool               `help:"Print JSON."`
}

// Run decodes RAW once more with today's metadata and prints how that compares with
// the tables.
func (c *redecodeCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	if !c.To.After(c.From.Time) {
		return errors.New("--to must be later than --from")
	}
	mac, err := parseMAC(c.MAC)
	if err != nil {
		return err
	}
	interval := replay.Interval{From: c.From.Time, To: c.To.Time, MAC: mac, DryRun: c.DryRun}
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
	bar := progress.Count("messages")
	interval.Progress = bar.Set
	difference, err := r.Redecode(ctx, interval)
	bar.Finish()
	if difference == nil {
		return err
	}
	return errors.Join(err, printAs(c.JSON, difference))
}
