package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/services/registrar"
)

type deviceListCommand struct {
	registryFlags
	JSON bool `help:"Print JSON."`
}

// Run prints one controller a line.
func (c *deviceListCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	return c.with(ctx, g, log, func(r *registrar.Core) error {
		devices, err := r.List(ctx)
		if err != nil {
			return err
		}
		registrar.AddLastSeen(ctx, g.state(), log, devices, "")
		if c.JSON {
			return plain.PrintJSON(devices)
		}
		return registrar.WriteDevices(os.Stdout, devices, time.Now())
	})
}

type deviceShowCommand struct {
	registryFlags
	MAC  string `arg:"" help:"MAC address, in any notation."`
	JSON bool   `help:"Print JSON."`
}

// Run prints all that is known of one controller.
func (c *deviceShowCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	macs, err := parseMACs([]string{c.MAC})
	if err != nil {
		return err
	}
	return c.with(ctx, g, log, func(r *registrar.Core) error {
		d, err := r.Show(ctx, macs[0])
		if err != nil {
			return err
		}
		devices := []registrar.Device{d}
		registrar.AddLastSeen(ctx, g.state(), log, devices, d.MAC)
		if c.JSON {
			return plain.PrintJSON(devices[0])
		}
		return registrar.WriteDevice(os.Stdout, &devices[0], r.Bundle(d.MAC), time.Now())
	})
}
