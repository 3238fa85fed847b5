package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/procfs"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	fleetCommand = "fleet"
	// rateOver is the time over which the rate is taken by which messages that wait become seconds.
	rateOver = 10
)

// fleetResult is the result of a run with many controllers. Lag is how long the messages that wait took to arrive:
// on RAW for the decoder and on DECODED for the writer, in seconds.
type fleetResult struct {
	Controllers int     `json:"controllers"`
	Components  int     `json:"components"` // of each
	Every       float64 `json:"every_s"`    // seconds between two messages of a component
	Seconds     int     `json:"seconds"`
	Rate        float64 `json:"messages_per_second"`
	Lag         float64 `json:"lag_s"` // the longest, but for the first rateOver seconds
	LagP99      float64 `json:"lag_p99_s"`
	Stored      uint64  `json:"stored"`  // on RAW, since the start
	Pending     uint64  `json:"pending"` // a minute after the end: 0, or messages were not handled in time
	figures
	Broker float64 `json:"mosquitto_mib"`
	Load   float64 `json:"load_cores"`
	Others float64 `json:"other_cores"`
}

func (r fleetResult) String() string {
	return fmt.Sprintf("%d controllers with %d components, each every %.1f s, for %d s: %.0f messages/s, lag p99 %.2f s, at most %.2f s; %d messages on RAW since the start, %d still pending; "+
		"CPU a message: own %.0f µs, Mosquitto %.0f µs, PostgreSQL %.0f µs; peak memory %.0f MiB, Mosquitto %.0f MiB; the load used %.2f cores, other processes %.1f",
		r.Controllers, r.Components, r.Every, r.Seconds, r.Rate, r.LagP99, r.Lag, r.Stored, r.Pending, r.Own, r.Mosquitto, r.PostgreSQL, r.Memory, r.Broker, r.Load, r.Others)
}

// measureFleet measures a mesh with many controllers, as a fleet sends: each component at its own interval.
func measureFleet(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(fleetCommand, flag.ExitOnError)
	many := flags.Int("controllers", 10_000, "controllers, each with the components of the demo fleet")
	rate := flags.Int("rate", 8000, "messages a second of the whole fleet")
	seconds := flags.Int("seconds", 600, "how long, from when all are connected")
	jsonFile := flags.String("json", "", "also write the result as JSON to this `file`")
	_ = flags.Parse(args[1:]) // it exits
	if *many < 1 || *rate < 1 || *seconds <= rateOver || flags.NArg() > 0 {
		return fmt.Errorf("-controllers and -rate must be at least 1, -seconds more than %d, and there are no other arguments", rateOver)
	}
	fmt.Fprintf(os.Stderr, "registering %d controllers\n", *many)
	r := fleetResult{Controllers: *many, Seconds: *seconds}
	for _, c := range fleet.Demo(1)[0].Connectors {
		r.Components += len(c.Components)
	}
	r.Every = float64(*many*r.Components) / float64(*rate)
	err := alone(ctx, fleetCommand, *many, func(s *servers) error {
		m, err := mesh.Open(ctx, s.State, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer m.Close()
		return r.measure(ctx, s, m)
	})
	if err != nil {
		return err
	}
	fmt.Println(r)
	if err := writeJSON(*jsonFile, r); err != nil {
		return err
	}
	if r.Pending > 0 {
		return fmt.Errorf("%d messages were not handled a minute after the last: the fleet is too large for this machine", r.Pending)
	}
	return nil
}

// measure has the fleet send, and looks at what waits each second.
func (r *fleetResult) measure(ctx context.Context, s *servers, m *mesh.Mesh) error {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return err
	}
	var connected atomic.Bool
	load, err := run("bin/f2mesh", func(line string) {
		if strings.Contains(line, "all controllers connected") {
			connected.Store(true)
		}
	}, "simulate", "--state-dir", s.State.Dir, "--log-format", "json", "--controllers", strconv.Itoa(r.Controllers),
		"--interval", time.Duration(r.Every*float64(time.Second)).String())
	if err != nil {
		return err
	}
	defer func() { _ = end(load) }() // an error if it has ended
	fmt.Fprintln(os.Stderr, "waiting until all are connected")
	if err := until(ctx, load, connected.Load); err != nil {
		return err
	}
	used := processes{up: s.Pid(), own: s.Pid()}
	if err := used.resetPeak(); err != nil {
		return err
	}
	before, err := used.measure(fs)
	if err != nil {
		return err
	}
	sent, err := cpuOf(fs, load.Pid())
	if err != nil {
		return err
	}
	looks, err := r.look(ctx, m)
	if err != nil {
		return err
	}
	after, err := used.measure(fs)
	if err != nil {
		return err
	}
	sentAfter, err := cpuOf(fs, load.Pid())
	if err != nil {
		return err
	}
	messages, took := float64(looks[len(looks)-1].stored-looks[0].stored), float64(r.Seconds)
	r.figures = figuresOf(before, after, took, messages)
	r.Rate, r.Broker, r.Load = messages/took, float64(after.broker)/(1<<20), (sentAfter-sent)/took
	r.Others = (after.machine-before.machine)/took - r.Load - r.All*r.Rate/1e6
	lags := lagsOf(looks)
	r.Lag, r.LagP99 = percentile(lags, 100), percentile(lags, 99)
	if err := end(load); err != nil {
		return err
	}
	for range 60 {
		last, err := lookOnce(ctx, m)
		if err != nil {
			return err
		}
		r.Stored, r.Pending = last.stored, last.waiting
		if last.waiting == 0 {
			break
		}
		time.Sleep(time.Second)
	}
	return nil
}

// moment is what RAW and DECODED hold at one time.
type moment struct {
	stored  uint64 // on RAW, since the start
	waiting uint64 // for the decoder or the writer
}

func (r *fleetResult) look(ctx context.Context, m *mesh.Mesh) (looks []moment, err error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for second := 0; ; second++ {
		one, err := lookOnce(ctx, m)
		if err != nil {
			return nil, err
		}
		looks = append(looks, one)
		if second%30 == 0 && second > 0 {
			fmt.Fprintf(os.Stderr, "%d of %d s: %d messages, %d waiting\n", second, r.Seconds, one.stored-looks[0].stored, one.waiting)
		}
		if second == r.Seconds {
			return looks, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func lookOnce(ctx context.Context, m *mesh.Mesh) (one moment, err error) {
	for _, place := range [][2]string{{stream.Raw, "decoder"}, {stream.Decoded, "writer"}} {
		c, err := m.JetStream.Consumer(ctx, place[0], place[1])
		if err != nil {
			return one, fmt.Errorf("looking at the consumer of %s: %w", place[0], err)
		}
		info := c.CachedInfo()
		one.waiting += info.NumPending + uint64(info.NumAckPending) //nolint:gosec // not negative
		if place[0] == stream.Raw {
			one.stored = info.Delivered.Stream + info.NumPending
		}
	}
	return one, nil
}

// lagsOf returns for each second, but for the first ones, how long the messages that wait took to come.
func lagsOf(looks []moment) (lags []float64) {
	for i := rateOver; i < len(looks); i++ {
		if came := float64(looks[i].stored-looks[i-rateOver].stored) / rateOver; came > 0 {
			lags = append(lags, float64(looks[i].waiting)/came)
		}
	}
	return lags
}

// cpuOf returns the CPU time of a process, in seconds.
func cpuOf(fs procfs.FS, pid int) (float64, error) {
	p, err := fs.Proc(pid)
	if err != nil {
		return 0, err
	}
	stat, err := p.Stat()
	if err != nil {
		return 0, err
	}
	return stat.CPUTime(), nil
}
