package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/operate/progress"
	"github.com/f2mesh/f2mesh/services/simulator"
)

type simulateCommand struct {
	Controllers int            `help:"Number of controllers, in addition to those that the running mesh simulates. New ones are registered, with their metadata, unless --devices names certificates." env:"F2MESH_CONTROLLERS" default:"5"`
	Interval    *time.Duration `help:"Time between two readings of a component. 0 is full speed: as fast as the broker acknowledges. Default: 30s, like a real device, or 0 with --messages or --rate."`
	HTTP        string         `help:"Address for /livez, /readyz and /metrics. Empty: disabled." env:"F2MESH_HTTP" default:"" name:"http"`
	Report      string         `help:"Write a digest of each acknowledged message to this file, for audit --acknowledged." type:"path"`

	Config simulator.Config `embed:""`
}

// Run simulates against the mesh that runs on the state directory, or with
// --devices against any broker; bounded runs end with a report.
func (c *simulateCommand) Run(ctx context.Context, g *globals, log *slog.Logger) (err error) {
	if c.Controllers < 1 {
		return errors.New("--controllers must be at least 1")
	}
	controllers := fleet.Demo(c.Controllers)
	here := c.Config.Devices == ""
	if here {
		st := g.state()
		r, err := st.Load()
		if err != nil {
			return err
		}
		lock, err := mesh.LockSimulation(st)
		if err != nil {
			return err
		}
		defer func() { _ = lock.Close() }()
		controllers = mesh.OtherControllers(&r, c.Controllers, os.Stderr)
		if err := c.register(ctx, st, r, controllers, log); err != nil {
			return err
		}
	}
	if err := c.pace(); err != nil {
		return err
	}
	if c.Report != "" {
		file, createErr := os.Create(filepath.Clean(c.Report))
		if createErr != nil {
			return fmt.Errorf("creating the report: %w", createErr)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		c.Config.Digests = file
	}
	if here && c.Config.MaxAhead > 0 && c.Config.Interval == 0 && c.Config.Rate == 0 {
		m, err := mesh.Open(ctx, g.state(), log)
		if err != nil {
			return err
		}
		defer m.Close()
		c.Config.Taken = mesh.BridgeCount(m.JetStream.Conn())
	}
	sim := simulator.New(c.Config, controllers, log)
	if c.HTTP != "" {
		stop, err := service.ServeHealth(ctx, c.HTTP, local.PartSimulator, sim.Ready, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	stop := c.showProgress(sim)
	report, err := sim.Run(ctx)
	stop()
	_, _ = report.WriteTo(os.Stdout)
	if c.Config.Messages == 0 && ctx.Err() != nil {
		return nil // stopped by its user
	}
	return err
}

// pace sets the interval and validates the configuration.
func (c *simulateCommand) pace() error {
	switch {
	case c.Interval != nil:
		c.Config.Interval = *c.Interval
	case c.Config.Messages == 0 && c.Config.Rate == 0:
		c.Config.Interval = 30 * time.Second
	}
	return c.Config.Validate()
}

// register registers the fleet with the mesh of the state directory.
func (c *simulateCommand) register(ctx context.Context, st mesh.State, r mesh.Description, controllers []fleet.Controller, log *slog.Logger) error {
	if err := enlarge(ctx, st, r, controllers, log); err != nil {
		return fmt.Errorf("registering the fleet: %w", err)
	}
	c.Config.Broker = "ssl://" + net.JoinHostPort(r.Public, strconv.Itoa(r.Ports.MQTTTLS))
	c.Config.CAFile, c.Config.Devices = r.CAFile, st.DevicesDir()
	return nil
}

// showProgress shows the number of acknowledged messages on a bar, if it is bounded.
func (c *simulateCommand) showProgress(sim *simulator.Simulator) (stop func()) {
	if c.Config.Messages == 0 {
		return func() {}
	}
	bar, ticker := progress.Count("acknowledged"), time.NewTicker(200*time.Millisecond)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-ticker.C:
				bar.Set(uint64(sim.Report().Acknowledged), uint64(c.Config.Messages+c.Config.Malformed)) //nolint:gosec // not negative
			case <-done:
				return
			}
		}
	}()
	return func() { ticker.Stop(); close(done); bar.Finish() }
}
