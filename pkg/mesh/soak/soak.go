// Package soak proves what the mesh promises (design 5): it runs a whole mesh of real
// servers, sends messages of simulated controllers, breaks one part after the other, and
// has an oracle say what became of each message. Negative controls break the mesh's own
// safety, one measure at a time, and must be caught.
package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/operate/ledger"
)

// run is one run on one mesh.
type run struct {
	*system
	journal     *journal
	controllers []*controller
	commands    *commandBook
	published   atomic.Int64
	rate        atomic.Int64 // messages per second
	paced       atomic.Int64 // how many may have been published by now
	faultsOver  atomic.Bool
	newest      newest
	recovery    time.Duration // bounds the time from the end of a fault to a new row
	prober      prober
}

// Run runs the mesh once and judges it. An error means that it could not be judged, or, with
// a report, not be deleted; what it found wrong is in the report.
func Run(ctx context.Context, cfg Config) (*RunReport, error) { return cfg.run(ctx, weakness{}) }

func (c *Config) run(ctx context.Context, w weakness) (report *RunReport, err error) {
	report = &RunReport{Seed: c.Seed, Started: time.Now().UTC(), Control: w.name, Bound: c.Bound, JudgeSpeed: c.JudgeSpeed}
	s, err := (*system)(nil), error(nil)
	if c.Compose != "" {
		s, err = join(ctx, c, c.Log)
	} else {
		s, err = build(ctx, c, w, c.Log)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	if err := checkTarget(s, c.kinds(), c.Target); err != nil {
		return nil, err
	}
	if w.afterStart != nil {
		if err := w.afterStart(ctx, s); err != nil {
			return nil, err
		}
	}
	r := &run{system: s, commands: newCommandBook(), recovery: cmp.Or(w.recovery, recoveryTime)}
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
	others.Go(func() { r.newest.watch(background, r.query, r.controllers[0].fleet.Sensors()[0]) })
	if err := r.prober.start(background, s.js, &others); err != nil {
		return nil, err
	}
	if err := r.bridged(ctx); err != nil {
		return nil, err
	}
	started := time.Now()
	r.rate.Store(int64(r.cfg.Rate))
	others.Go(func() { r.pace(background) })
	macs := []string{}
	for _, one := range r.controllers {
		macs = append(macs, string(one.fleet.MAC))
		sending.Go(func() { one.run(background) })
	}
	commanding, stopCommands := context.WithCancel(background)
	defer stopCommands()
	others.Go(func() { r.commands.send(commanding, s.js, macs) })
	if err := r.newest.moves(ctx, time.Now(), recoveryTime); err != nil {
		return nil, fmt.Errorf("before the first fault: %w; %s", err, r.pending(ctx))
	}
	r.breakIt(ctx, report)
	report.Recoveries = recoveriesOf(report.Faults)
	if c.Drain && report.Broken == "" {
		d := drainer{rate: &r.rate, usual: int64(c.Rate), newest: &r.newest, pause: r.pause, query: r.query, say: c.Progress}
		report.Drains = d.measure(ctx)
	}
	r.faultsOver.Store(true)
	if report.Broken != "" {
		stop()
		sending.Wait()
		others.Wait()
		return report, r.journal.close()
	}
	sending.Wait()
	report.Sending = time.Since(started)
	stopCommands()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	settled := time.Now()
	report.Unsettled = r.settle(ctx)
	report.Settling = time.Since(settled)
	stop()
	others.Wait()
	if err := r.journal.close(); err != nil {
		return nil, err
	}
	return report, r.judge(ctx, report, journalPath)
}

// prepareFleet makes the controllers that send and those that are spare.
func (r *run) prepareFleet() error {
	for i, c := range r.fleet {
		one := &controller{
			index: uint16(i), fleet: c, broker: r.links[controllersLink].address, journal: r.journal, commands: r.commands,
			allowance: r.allowance, finished: r.finished,
		}
		if err := one.identify(r.devices, r.caFile); err != nil {
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
	before, err := r.js.Stream(ctx, "RAW")
	if err != nil {
		return fmt.Errorf("asking for stream RAW: %w", err)
	}
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
		return err == nil && s.CachedInfo().State.LastSeq > before.CachedInfo().State.LastSeq
	})
}

// maxBehind is for how many seconds of an outage the controllers catch up on their messages.
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
			rate := float64(r.rate.Load())
			allowed += now.Sub(last).Seconds() * rate
			last = now
			allowed = min(allowed, float64(r.published.Load())+maxBehind*rate)
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
func (r *run) breakIt(ctx context.Context, report *RunReport) {
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
		if ctx.Err() != nil {
			return
		}
		f.Healed = healed
		if err == nil {
			if err = r.newest.moves(ctx, healed, r.recovery); err != nil {
				err = fmt.Errorf("%w; %s", err, r.pending(ctx))
			}
			f.Recovery = time.Since(healed)
		}
		if p.kind.after != nil && !errors.Is(err, errNoStart) {
			err = errors.Join(err, p.kind.after(ctx, r.system))
		}
		if err != nil {
			f.Problem = err.Error()
			r.cfg.Progress("  " + f.Problem)
		}
		if errors.Is(err, errNoStart) {
			report.Broken = f.Problem
		}
		if p.kind.brokers {
			report.brokerEnds = append(report.brokerEnds, f.At)
		}
		report.Faults = append(report.Faults, f)
		if report.Broken != "" {
			return
		}
	}
}

// settle waits until nothing is pending any more. It returns what is, after settleTime.
func (r *run) settle(ctx context.Context) string {
	err := within(ctx, settleTime, "all messages are through", func(ctx context.Context) bool {
		return r.pending(ctx) == ""
	})
	if err != nil {
		return err.Error() + "; " + r.pending(ctx)
	}
	hold(ctx, time.Second)
	return ""
}

// pending says which consumers have messages before them, and what is parked; "" if nothing is.
func (r *run) pending(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var texts []string
	for _, of := range [][2]string{{"RAW", "decoder"}, {"DECODED", "writer"}} {
		c, err := r.js.Consumer(ctx, of[0], of[1])
		if err != nil {
			texts = append(texts, fmt.Sprintf("asking for consumer %s: %v", of[1], err))
		} else if i := c.CachedInfo(); i.NumPending > 0 || i.NumAckPending > 0 {
			texts = append(texts, fmt.Sprintf("%s has %d messages to deliver to the %s and %d without acknowledgement", of[0], i.NumPending, of[1], i.NumAckPending))
		}
	}
	parked, err := r.js.Stream(ctx, "PARKED")
	if err != nil {
		texts = append(texts, fmt.Sprintf("asking for stream PARKED: %v", err))
	} else if n := parked.CachedInfo().State.Msgs; n > 0 {
		texts = append(texts, fmt.Sprintf("PARKED has %d messages", n))
	}
	return strings.Join(texts, ", ")
}

// judgeRun reads everything and judges it.
func judgeRun(ctx context.Context, s *system, controllers []fleet.Controller, journalPath string, ends []time.Time, bound time.Duration) (v Fates, err error) {
	o := newOracle(controllers)
	if err := o.read(journalPath); err != nil {
		return v, err
	}
	if err := o.writeAcknowledged(acknowledgedIn(journalPath)); err != nil {
		return v, err
	}
	if err := o.readStreams(ctx, s.js); err != nil {
		return v, err
	}
	conn, err := s.query(ctx)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := o.readTables(ctx, conn); err != nil {
		return v, err
	}
	return o.judge(ends, bound), nil
}

func acknowledgedIn(journalPath string) string { return journalPath + ".acknowledged" }

// outages are the partitions of the controllers' network.
func outages(faults []Fault) (all []outage) {
	for _, f := range faults {
		if f.Kind == "partition" && f.Target == controllersLink {
			all = append(all, outage{f.At, f.Healed})
		}
	}
	return all
}

// judge has the oracle and the ledger say what became of everything.
func (r *run) judge(ctx context.Context, report *RunReport, journalPath string) (err error) {
	list := []fleet.Controller{}
	for _, c := range r.controllers {
		list = append(list, c.fleet)
	}
	if report.Fates, err = judgeRun(ctx, r.system, list, journalPath, report.brokerEnds, r.cfg.Bound); err != nil {
		return err
	}
	if report.JetStream, err = r.prober.judge(ctx, r.js); err != nil {
		return err
	}
	if err := r.commands.answered(ctx, r.js); err != nil && ctx.Err() != nil {
		return err
	}
	report.Commands = r.commands.totals(r.commandMax, outages(report.Faults))
	conn, err := r.query(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	audit, err := ledger.AuditSettled(ctx, r.js, conn, ledger.Options{}, acknowledgedIn(journalPath), 30*time.Second)
	if err != nil {
		return err
	}
	// What only the broker had is another matter than what the streams and tables say.
	report.LedgerNotInRAW = int(audit.Acknowledged.NeverReceived) //nolint:gosec // far from the end
	audit.Acknowledged.NeverReceived = 0
	if report.LedgerBalanced = audit.Balanced(); !report.LedgerBalanced {
		var text strings.Builder
		_, err = audit.WriteTo(&text)
		report.Ledger = text.String()
	}
	return err
}
