package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
)

// Command is `f2mesh soak`.
type Command struct {
	Config   `embed:""`
	Controls string `help:"Negative controls to run afterwards: all, none, or their names, separated by commas." default:"all"`
	Report   string `help:"File for the report as JSON." type:"path"`
}

// Run runs a mesh under faults, and the controls. It returns an error if a promise was
// broken or a control came out clean.
func (c *Command) Run(ctx context.Context, hooks Hooks, log *slog.Logger) (err error) {
	if c.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if c.Compose != "" {
		if c.Controls != "all" && c.Controls != "none" {
			return errors.New("--controls: negative controls need a mesh of their own; omit --compose")
		}
		c.Controls = "none"
	}
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano())
	}
	c.Hooks, c.Log = hooks, log
	c.Progress = func(text string) { fmt.Println(text) }
	missing, err := c.Prepare(ctx)
	if err != nil {
		return err
	}
	return runAll(ctx, c.Config, c.Controls, missing, os.Stdout, c.Report)
}

// NATS is the hidden command with which a soak runs its NATS server.
type NATS struct {
	Dir      string `arg:"" help:"State directory."`
	Port     int    `required:"" help:"TCP port."`
	Unsynced bool   `help:"Acknowledge before messages are on disk."`
}

// Run runs the server until it is stopped.
func (c *NATS) Run(ctx context.Context, log *slog.Logger) error {
	cfg := localConfig()
	cfg.Ports.NATS, cfg.Unsynced = c.Port, c.Unsynced
	m, err := local.New(mesh.State{Dir: c.Dir}, cfg, log)
	if err != nil {
		return err
	}
	if err := m.Start(ctx, local.PartNATS); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return m.Stop(local.PartNATS)
	case <-m.Stuck():
		return errors.New("NATS does not stop") // a new process starts it
	}
}
