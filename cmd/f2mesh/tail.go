package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/services/decoder"
)

type tailCommand struct {
	MAC   string        `arg:"" optional:"" help:"Only this controller."`
	Since time.Duration `help:"Start this long ago instead of now."`
	Lines int           `short:"n" help:"Stop after this many messages. 0: never."`
	JSON  bool          `help:"Print each message of DECODED as JSON, with its subject."`
}

// Run prints messages of DECODED until it is interrupted.
func (c *tailCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	mac, err := parseMAC(c.MAC)
	if err != nil {
		return err
	}
	filter := "f2.decoded.>"
	if mac != "" {
		filter = "f2.decoded." + string(mac) + ".>"
	}
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	return decoder.Tail{Filter: filter, From: time.Now().Add(-c.Since), Lines: c.Lines, Raw: c.JSON, Log: log}.Run(ctx, m.JetStream, os.Stdout)
}
