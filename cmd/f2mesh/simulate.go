package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/health"
	"github.com/f2mesh/f2mesh/services/simulator"
)

type simulateCommand struct {
	Controllers int            `help:"Number of controllers, in addition to those that the running mesh simulates. New ones are registered, with their metadata, unless --devices names certificates." env:"F2MESH_CONTROLLERS" default:"5"`
	Interval    *time.Duration `help:"Time between two readings of a component. 0 is full speed: as fast as the broker acknowledges. Default: 30s, like a real device, or 0 with --messages or --rate."`
	MaxAhead    int64          `help:"At full speed, pause while this many acknowledged messages wait in the broker for the bridge. 0 never pauses." default:"200000"`
	HTTP        string         `help:"Address for /livez, /readyz and /metrics. Empty: disabled." env:"F2MESH_HTTP" default:"" name:"http"`
	Report      string         `help:"Write a digest of each acknowledged message to this file, for audit --acknowledged." type:"path"`

	Config simulator.Config `embed:""`
}

// Run simulates against the mesh that runs on the state directory, or with
// --devices against any broker; bounded runs end with a report.
func (c *simulateCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	if c.Controllers < 1 {
		return errors.New("a fleet has at least one controller")
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
	acknowledged, finish, err := c.record()
	if err != nil {
		return err
	}
	c.Config.OnAcknowledged = acknowledged
	if c.HTTP != "" {
		stop, err := c.serveHealth(ctx, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	if here && c.MaxAhead > 0 && c.Config.Interval == 0 && c.Config.Rate == 0 {
		m, err := mesh.Open(ctx, g.state(), log)
		if err != nil {
			return err
		}
		defer m.Close()
		c.Config.Hold = c.holdBack(bridgeCount(m.JetStream.Conn()))
	}
	report, err := simulator.New(c.Config, controllers, log).Run(ctx)
	err = errors.Join(err, finish())
	printReport(os.Stdout, &report)
	if c.Config.Messages == 0 && ctx.Err() != nil {
		return nil // stopped by its user
	}
	return err
}

// pace sets the interval, and looks at the settings as a whole.
func (c *simulateCommand) pace() error {
	switch {
	case c.Interval != nil:
		c.Config.Interval = *c.Interval
	case c.Config.Messages == 0 && c.Config.Rate == 0:
		c.Config.Interval = 30 * time.Second
	}
	return c.Config.Validate()
}

// holdBack answers when to pause: a burst, then a rest is cheaper for all than a
// trickle.
func (c *simulateCommand) holdBack(taken func() int64) func(acknowledged int64) bool {
	held := false
	return func(acknowledged int64) bool {
		ahead := acknowledged - taken()
		held = ahead > c.MaxAhead || held && ahead > c.MaxAhead/4
		return held
	}
}

// others are n controllers that the running mesh does not play itself: the broker has
// one session of each, and whoever comes second ends the first's.
func others(r *mesh.Description, n int, out io.Writer) []fleet.Controller {
	if !r.Simulating || r.Controllers == 0 {
		return fleet.Demo(n)
	}
	fmt.Fprintf(out, "the mesh simulates %d controllers itself; these are the next %d (`f2mesh up --no-simulate` leaves the first ones to you)\n", r.Controllers, n)
	return fleet.Demo(r.Controllers + n)[r.Controllers:]
}

// lockSimulation makes this the only simulate on the mesh, until it exits.
func lockSimulation(s mesh.State) (*os.File, error) {
	f, err := os.OpenFile(s.Path("simulate.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the simulation's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errors.New("another `f2mesh simulate` plays controllers of this mesh, and each would end the other's sessions: " +
			"stop it, or ask it for more --controllers instead")
	}
	return f, nil
}

// register makes the fleet known to the mesh that runs here.
func (c *simulateCommand) register(ctx context.Context, st mesh.State, r mesh.Description, controllers []fleet.Controller, log *slog.Logger) error {
	if err := enlarge(ctx, st, r, controllers, log); err != nil {
		return fmt.Errorf("registering the fleet: %w", err)
	}
	c.Config.Broker = "ssl://" + net.JoinHostPort(r.Public, strconv.Itoa(r.Ports.MQTTTLS))
	c.Config.CAFile, c.Config.Devices = r.CAFile, st.DevicesDir()
	return nil
}

// bridgeCount answers a function that says how many messages the bridge has
// taken from the broker since now. A bridge that is away takes none; one that
// has started again counts on from there.
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

// record returns what to call for each acknowledged message, and how to end.
func (c *simulateCommand) record() (acknowledged func(string, []byte), finish func() error, err error) {
	note, endNote, err := c.digests()
	if err != nil {
		return nil, nil, err
	}
	count, endCount := c.progress()
	return func(name string, body []byte) { note(name, body); count() }, func() error { endCount(); return endNote() }, nil
}

// digests writes the digest of each acknowledged message, as often as it was
// acknowledged.
func (c *simulateCommand) digests() (func(string, []byte), func() error, error) {
	if c.Report == "" {
		return func(string, []byte) {}, func() error { return nil }, nil
	}
	file, err := os.Create(filepath.Clean(c.Report))
	if err != nil {
		return nil, nil, fmt.Errorf("writing the report: %w", err)
	}
	out := bufio.NewWriterSize(file, 1<<20)
	var mu sync.Mutex
	note := func(name string, body []byte) {
		place := name
		if t, err := topic.Parse(name); err == nil {
			place = t.RawSubject()
		}
		digest := event.ID(event.Digest(place, body)).String()
		mu.Lock()
		defer mu.Unlock()
		_, _ = out.WriteString(digest) // Flush returns the error
		_ = out.WriteByte('\n')
	}
	return note, func() error { return errors.Join(out.Flush(), file.Close()) }, nil
}

// progress counts on a bar where people look at it.
func (c *simulateCommand) progress() (count, end func()) {
	total := c.Config.Messages + c.Config.Malformed
	if c.Config.Messages == 0 || !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}, func() {}
	}
	bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("acknowledged"),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionClearOnFinish())
	var n atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			_ = bar.Set64(n.Load())
			select {
			case <-done:
				_ = bar.Finish()
				return
			case <-ticker.C:
			}
		}
	})
	return func() { n.Add(1) }, func() { close(done); wg.Wait() }
}

func printReport(out io.Writer, r *simulator.Report) {
	rate := 0.0
	if s := r.Duration.Seconds(); s > 0 {
		rate = float64(r.Acknowledged) / s
	}
	fmt.Fprintf(out, "sent %d, acknowledged %d, unacknowledged %d, sent again %d; %s, %.0f messages/s\n",
		r.Sent, r.Acknowledged, r.Unacknowledged, r.Retried, r.Duration.Round(time.Millisecond), rate)
	for _, part := range []map[string]int64{r.Components, r.Malformed} {
		for _, name := range slices.Sorted(maps.Keys(part)) {
			fmt.Fprintf(out, "  %-24s %d\n", name, part[name])
		}
	}
}
