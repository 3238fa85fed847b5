package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/f2mesh/f2mesh/services/registrar"
)

type deviceLogCommand struct {
	registryFlags
	MAC   string        `arg:"" optional:"" help:"Only this controller (MAC address in any notation)."`
	Since time.Duration `help:"Maximum age. 0: no limit." default:"0"`
	Limit int           `help:"Maximum number of events. The latest are shown." default:"1000"`
	JSON  bool          `help:"Print JSON, one event per line."`
}

// Run prints the audit trail from its table. The stream AUDIT has the same:
// `nats stream view AUDIT`.
func (c *deviceLogCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	mac, err := parseMAC(c.MAC)
	if err != nil {
		return err
	}
	var since time.Time
	if c.Since > 0 {
		since = time.Now().Add(-c.Since)
	}
	var events []registrar.Event
	err = c.with(ctx, g, log, func(r *registrar.Core) (err error) {
		events, err = registrar.NewTrail(r.Pool.Pool).Since(ctx, since, string(mac), c.Limit)
		return err
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printEvents(os.Stdout, events)
	}
	return registrar.WriteEvents(os.Stdout, events)
}

func printEvents(out io.Writer, events []registrar.Event) error {
	encoder := json.NewEncoder(out)
	for _, e := range events {
		if err := encoder.Encode(e); err != nil {
			return err
		}
	}
	return nil
}
