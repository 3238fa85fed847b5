package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"

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
	s, err := c.observe(ctx, m.JetStream)
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(s)
	} else {
		_, err = s.WriteTo(os.Stdout)
	}
	for _, stage := range s.Stages {
		if !stage.Ready {
			err = errors.Join(err, errUnhealthy)
			break
		}
	}
	return err
}

// observe looks twice, for the rates.
func (c *statusCommand) observe(ctx context.Context, js jetstream.JetStream) (*monitor.Status, error) {
	before, err := monitor.Look(ctx, js)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(c.Sample):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now, err := monitor.Look(ctx, js)
	if err != nil {
		return nil, err
	}
	now.Rates(before)
	return now, nil
}
