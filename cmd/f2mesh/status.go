package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	monitor "github.com/f2mesh/f2mesh/services/health"
)

type statusCommand struct {
	Sample time.Duration `help:"Interval over which rates are measured." default:"1s"`
	JSON   bool          `help:"Print JSON."`
}

// errUnhealthy makes the exit status say what the screen says.
var errUnhealthy = errors.New("a stage is not ready")

// Run prints one screen; its exit status is 1 if a stage is not ready.
func (c *statusCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	s, err := monitor.Observe(ctx, m.JetStream, c.Sample)
	if err != nil {
		return err
	}
	err = printAs(c.JSON, s)
	for _, stage := range s.Stages {
		if !stage.Ready {
			err = errors.Join(err, errUnhealthy)
			break
		}
	}
	return err
}
