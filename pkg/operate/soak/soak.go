// Package soak proves what the mesh promises (design 5): it runs a whole mesh of real
// servers, sends messages of simulated controllers, breaks one part after the other, and
// has an oracle say what became of each message. Negative controls break the mesh's own
// safety, one measure at a time, and must be caught.
package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/ledger"
)

// Config says how to run.
type Config struct {
	Messages    int // at least: they are sent until the last fault is over
	Faults      int
	Seed        uint64
	Rate        int // messages a second
	Controllers int
	Kinds       []string      // of faults; none: all that the machine can do
	Dir         string        // where the mesh's folder is made
	Bound       time.Duration // see Verdict.AtBroker
	CommandAge  time.Duration // how old a command may be when it is carried out
	UpgradeFrom string        // the program of an earlier release, which runs the services at first

	// Program is f2mesh itself.
	Program string
	// New makes a mesh on a state directory, without starting it; withoutSaves has a broker
	// that saves nothing while it runs.
	New func(st mesh.State, withoutSaves bool, controllers int, log *slog.Logger) (*local.Parts, error)
	// Environment is what services need to reach the servers of the mesh.
	Environment func(m *local.Parts) []string
	// Progress is told what happens.
	Progress func(text string)
	Log      *slog.Logger

	diskProblem error  // why there is no disk that can lose power
	target      string // of all faults, for a control; "": any
}

// spares are controllers that send nothing until they are revoked.
const spares = 4

// settleTime bounds how long the mesh may take, after the last fault, to bring everything
// to where it belongs.
const settleTime = 3 * time.Minute

// Prepare checks what the machine can do, and returns the kinds of faults that it cannot.
func (c *Config) Prepare(ctx context.Context) (missing map[string]string, err error) {
	if c.Messages < 1 || c.Rate < 1 || c.Controllers < 1 {
		return nil, errors.New("messages, rate and controllers must be at least 1")
	}
	if c.Dir == "" {
		c.Dir = os.TempDir()
	}
	for _, name := range c.Kinds {
		if !slices.Contains(Kinds(), name) {
			return nil, fmt.Errorf("unknown kind of fault %q; known: %v", name, Kinds())
		}
	}
	c.diskProblem = tryDisk(ctx, c.Dir)
	missing = map[string]string{}
	for _, k := range faultKinds() {
		if k.missing != nil {
			if why := k.missing(c); why != "" {
				missing[k.name] = why
			}
		}
	}
	return missing, nil
}

// tryDisk mounts a disk and has it lose power.
func tryDisk(ctx context.Context, dir string) error {
	for _, program := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	folder, err := os.MkdirTemp(dir, "soak-disk-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	d, err := createDisk(ctx, folder)
	if err != nil {
		return err
	}
	return errors.Join(d.cutPower(), d.restore(ctx), d.close(ctx))
}

// kinds are those that are asked for and that the machine can do.
func (c *Config) kinds() (chosen []faultKind) {
	for _, k := range faultKinds() {
		if (len(c.Kinds) == 0 || slices.Contains(c.Kinds, k.name)) && (k.missing == nil || k.missing(c) == "") {
			chosen = append(chosen, k)
		}
	}
	return chosen
}

// weakness is what a negative control takes away. The zero value is a sound mesh.
type weakness struct {
	name       string
	unsynced   bool           // NATS syncs when it likes
	noSaves    bool           // the broker saves nothing while it runs
	bridgeLink func() rewrite // changes what the bridge and the broker say to each other
	afterStart func(ctx context.Context, s *system) error
}

// run is one run on one mesh.
type run struct {
	*system
	journal     *journal
	controllers []*controller
	commands    *commandBook
	published   atomic.Int64
	acked       atomic.Int64
	paced       atomic.Int64 // how many may have been published by now
	faultsOver  atomic.Bool
	newest      newest
	prober      prober
}

// Run runs the mesh once and judges it. An error means that it could not be judged; what
// it found wrong is in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) { return cfg.run(ctx, weakness{}) }

func (c *Config) run(ctx context.Context, w weakness) (report *Report, err error) {
	report = &Report{Seed: c.Seed, Started: time.Now().UTC(), Control: w.name, Bound: c.Bound}
	s, err := build(ctx, c, w, c.Log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	if w.afterStart != nil {
		if err := w.afterStart(ctx, s); err != nil {
			return nil, err
		}
	}
	r := &run{system: s, commands: newCommandBook()}
	journalPath := filepath.Join(s.folder, "journal")
	if r.journal, err = createJournal(journalPath); err != nil {
		return nil, err
	}
	if err := r.prepareFleet(); err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(ctx)
	var others, sending sync.WaitGroup
	defer others.Wait()
	defer stop()
	others.Go(func() { r.newest.watch(background, r) })
	if err := r.prober.start(background, s.js, &others); err != nil {
		return nil, err
	}
	if err := r.bridged(ctx); err != nil {
		return nil, err
	}
	started := time.Now()
	others.Go(func() { r.pace(background) })
	macs := []string{}
	for _, one := range r.controllers {
		macs = append(macs, string(one.fleet.MAC))
		sending.Go(func() { one.run(background) })
	}
	commanding, stopCommands := context.WithCancel(background)
	defer stopCommands()
	others.Go(func() { r.commands.send(commanding, s.js, macs, 500*time.Millisecond) })
	if err := r.newest.moves(ctx, time.Now(), time.Minute); err != nil {
		return nil, fmt.Errorf("before the first fault: %w", err)
	}
	r.breakIt(ctx, report)
	sending.Wait()
	report.Sending = time.Since(started)
	stopCommands()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	settled := time.Now()
	report.Unsettled = r.settle(ctx)
	report.Settling = time.Since(settled)
	r.prober.finish(ctx)
	stop()
	others.Wait()
	if err := r.journal.close(); err != nil {
		return nil, err
	}
	return report, r.judge(ctx, report, journalPath)
}

// prepareFleet makes the controllers that send and those that are spare.
func (r *run) prepareFleet() error {
	for i, c := range fleet.Demo(r.cfg.Controllers + spares) {
		one := &controller{
			index: uint16(i), fleet: c, broker: r.links["controllers-mosquitto"].address, journal: r.journal, commands: r.commands, //nolint:gosec // small
			allowance: r.allowance, finished: r.finished, acked: &r.acked,
		}
		if err := one.identify(r.state.DevicesDir(), r.parts.Authority.CAFile()); err != nil {
			return err
		}
		if i < r.cfg.Controllers {
			r.controllers = append(r.controllers, one)
		} else {
			r.spares = append(r.spares, one)
		}
	}
	return nil
}

// bridged waits until the bridge has its session at the broker: before that nobody
// keeps what a controller publishes.
func (r *run) bridged(ctx context.Context) error {
	return within(ctx, time.Minute, "the bridge is connected", func(ctx context.Context) bool {
		_, err := r.js.Conn().RequestWithContext(ctx, "$SRV.PING.f2mesh-bridge", nil)
		if err != nil {
			return false
		}
		if err := r.spares[0].publishOnce(ctx); err != nil {
			return false
		}
		hold(ctx, 200*time.Millisecond)
		s, err := r.js.Stream(ctx, "RAW")
		return err == nil && s.CachedInfo().State.Msgs > 0
	})
}

// maxBehind is how many messages the controllers catch up on after an outage.
const maxBehind = 5

// pace lets the controllers send at the rate. What an outage of the broker held up comes
// in a burst, of some seconds at most.
func (r *run) pace(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	var allowed float64
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			allowed += now.Sub(last).Seconds() * float64(r.cfg.Rate)
			last = now
			allowed = min(allowed, float64(r.published.Load())+float64(maxBehind*r.cfg.Rate))
			r.paced.Store(int64(allowed))
		}
	}
}

func (r *run) allowance() bool {
	for {
		n := r.published.Load()
		if n >= r.paced.Load() || n >= int64(r.cfg.Messages) && r.faultsOver.Load() {
			return false
		}
		if r.published.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// finished is whether nothing more is sent: there is traffic until the last fault is over.
func (r *run) finished() bool { return r.enough() && r.faultsOver.Load() }

func (r *run) enough() bool { return r.published.Load() >= int64(r.cfg.Messages) }

// breakIt carries the schedule out, spread over the messages.
func (r *run) breakIt(ctx context.Context, report *Report) {
	defer r.faultsOver.Store(true)
	planned := plan(r.cfg.kinds(), r.cfg.Seed, r.cfg.Faults)
	for i, p := range planned {
		at := int64(float64(r.cfg.Messages) * (float64(i) + 0.5) / float64(len(planned)))
		for r.published.Load() < at {
			hold(ctx, 20*time.Millisecond)
			if ctx.Err() != nil {
				return
			}
		}
		f := p.on(r.system)
		f.At = time.Now()
		r.cfg.Progress(fmt.Sprintf("%7d of %d messages, fault %d of %d: %s", r.published.Load(), r.cfg.Messages, i+1, len(planned), f))
		healed, err := p.kind.inject(ctx, r.system, &f)
		f.Healed = healed
		if err == nil {
			err = r.newest.moves(ctx, healed, time.Minute)
			f.Recovery = time.Since(healed)
		}
		if err != nil {
			f.Problem = err.Error()
			r.cfg.Progress("  " + f.Problem)
		}
		if p.kind.brokers {
			report.brokerEnds = append(report.brokerEnds, f.At)
		}
		report.Faults = append(report.Faults, f)
	}
}

// settle waits until nothing is pending any more. It returns what is, after settleTime.
func (r *run) settle(ctx context.Context) string {
	err := within(ctx, settleTime, "all messages are through", func(ctx context.Context) bool {
		for streamName, consumer := range map[string]string{"RAW": "decoder", "DECODED": "writer"} {
			c, err := r.js.Consumer(ctx, streamName, consumer)
			if err != nil || c.CachedInfo().NumPending+uint64(c.CachedInfo().NumAckPending) > 0 { //nolint:gosec // not negative
				return false
			}
		}
		parked, err := r.js.Stream(ctx, "PARKED")
		return err == nil && parked.CachedInfo().State.Msgs == 0
	})
	if err != nil {
		return err.Error()
	}
	hold(ctx, time.Second)
	return ""
}

// judge has the oracle and the ledger say what became of everything.
func (r *run) judge(ctx context.Context, report *Report, journalPath string) (err error) {
	list := []fleet.Controller{}
	for _, c := range r.controllers {
		list = append(list, c.fleet)
	}
	if report.Verdict, err = judgeRun(ctx, r.system, list, journalPath, report.brokerEnds, r.cfg.Bound); err != nil {
		return err
	}
	if report.JetStream, err = r.prober.judge(ctx, r.js); err != nil {
		return err
	}
	if err := r.commands.answered(ctx, r.js); err != nil && ctx.Err() != nil {
		return err
	}
	report.Commands = r.commands.totals(r.cfg.CommandAge)
	conn, err := r.query(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	audit, err := ledger.AuditSettled(ctx, r.js, conn, ledger.Options{}, "", 30*time.Second)
	if err != nil {
		return err
	}
	report.LedgerBalanced = audit.Balanced()
	return nil
}

// newest is the newest reading of the first controller that is committed.
type newest struct {
	mu     sync.Mutex
	at     time.Time // the reading's own time
	gap    time.Duration
	change time.Time // when it last changed
}

// watch asks the database again and again.
func (n *newest) watch(ctx context.Context, r *run) {
	var conn *pgx.Conn
	device := r.controllers[0].fleet.Sensors()[0]
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		var err error
		if conn == nil {
			conn, err = r.query(bounded)
		}
		var at time.Time
		if err == nil {
			err = conn.QueryRow(bounded, "SELECT time FROM measurement WHERE device_id = $1 AND datapoint_id = $2 ORDER BY time DESC LIMIT 1",
				device.DeviceID, device.Template.Points[0].DataPointID).Scan(&at)
		}
		cancel()
		switch {
		case err == nil:
			n.note(at)
		case !errors.Is(err, pgx.ErrNoRows) && conn != nil:
			_ = conn.Close(context.WithoutCancel(ctx))
			conn = nil
		}
		hold(ctx, 20*time.Millisecond)
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
}

func (n *newest) note(at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.After(n.at) {
		n.at, n.change = at, time.Now()
	}
}

// moves waits until a reading is committed that was taken after the given time.
func (n *newest) moves(ctx context.Context, after time.Time, limit time.Duration) error {
	return within(ctx, limit, "a new row is committed", func(context.Context) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.at.After(after)
	})
}
