package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/health"
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
		lock, err := lockSimulation(st)
		if err != nil {
			return err
		}
		defer func() { _ = lock.Close() }()
		controllers = others(&r, c.Controllers, os.Stderr)
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
		c.Config.Taken = bridgeCount(m.JetStream.Conn())
	}
	sim := simulator.New(c.Config, controllers, log)
	if c.HTTP != "" {
		stop, err := c.serveHealth(ctx, sim.Ready, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	endProgress := c.showProgress(func() int64 { return sim.Report().Acknowledged })
	report, err := sim.Run(ctx)
	endProgress()
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

// others returns n controllers that the running mesh does not simulate itself: the broker
// has one session for each, and a second connection closes the first.
func others(r *mesh.Description, n int, out io.Writer) []fleet.Controller {
	if !r.Simulating || r.Controllers == 0 {
		return fleet.Demo(n)
	}
	fmt.Fprintf(out, "the mesh simulates %d controllers itself; these are the next %d (`f2mesh up --no-simulate` leaves the first ones to you)\n", r.Controllers, n)
	return fleet.Demo(r.Controllers + n)[r.Controllers:]
}

// lockSimulation makes this process the only `f2mesh simulate` on the mesh until it exits.
func lockSimulation(s mesh.State) (*os.File, error) {
	f, err := os.OpenFile(s.Path("simulate.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the simulation's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errors.New("another `f2mesh simulate` runs on this mesh, and the two would close each other's sessions: " +
			"stop it, or start it with more --controllers")
	}
	return f, nil
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

// bridgeCount returns a function that returns how many messages the bridge has taken from
// the broker since this call. A restart of the bridge does not reset it.
func bridgeCount(nc *nats.Conn) func() int64 {
	received := func() (int64, bool) {
		m, err := nc.Request("$SRV.STATS.f2mesh-bridge", nil, time.Second)
		if err != nil {
			return 0, false
		}
		o, ok := health.ParseStats(m.Data)
		return int64(o.Figures["f2mesh_bridge_messages_received_total"]), ok
	}
	last, _ := received()
	var taken int64
	return func() int64 {
		if n, ok := received(); ok {
			if n < last {
				last = 0
			}
			taken, last = taken+n-last, n
		}
		return taken
	}
}

// showProgress shows the number of acknowledged messages on a bar, if standard error is a
// terminal.
func (c *simulateCommand) showProgress(acknowledged func() int64) (end func()) {
	if c.Config.Messages == 0 || !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}
	}
	bar := progressbar.NewOptions(c.Config.Messages+c.Config.Malformed, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("acknowledged"),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionClearOnFinish())
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			_ = bar.Set64(acknowledged())
			select {
			case <-done:
				_ = bar.Finish()
				return
			case <-ticker.C:
			}
		}
	})
	return func() { close(done); wg.Wait() }
}
