package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/procfs"

	"github.com/f2mesh/f2mesh/pkg/mesh"
)

const (
	pacedCommand = "paced"
	// sampled is how many controllers' rows are looked for, and pollEvery how often.
	sampled   = 10
	pollEvery = 2 * time.Millisecond
)

// pace is the result of a run at a constant rate. Times are in milliseconds.
type pace struct {
	Rate    int     `json:"rate"`
	Seconds int     `json:"seconds"`
	Written int     `json:"written"` // messages
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_ms"`
	P90     float64 `json:"p90_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
	Poll    float64 `json:"poll_ms"` // longest time between two looks, of 99 in 100: what the figures may be too high
	stages
	figures
	Others float64 `json:"other_cores"`
}

func (p pace) String() string {
	return fmt.Sprintf("%d messages/s for %d s: %d of %d are rows; from publish to row of %d messages: p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms (up to %.1f ms of it for looking); %s; "+
		"CPU a message: own %.0f µs, Mosquitto %.0f µs, PostgreSQL %.0f µs; peak memory %.0f MiB; other processes used %.1f cores",
		p.Rate, p.Seconds, p.Written, p.Rate*p.Seconds, p.Samples, p.P50, p.P90, p.P99, p.Max, p.Poll, p.stages,
		p.Own, p.Mosquitto, p.PostgreSQL, p.Memory, p.Others)
}

// paced measures the time from a controller's publish to the row that others can read.
func paced(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(pacedCommand, flag.ExitOnError)
	rate := flags.Int("rate", 100, "messages a second of the whole fleet")
	seconds := flags.Int("seconds", 30, "how long")
	jsonFile := flags.String("json", "", "also write the result as JSON to this `file`")
	_ = flags.Parse(args[1:]) // it exits
	if *rate < 1 || *seconds < 1 || flags.NArg() > 0 {
		return errors.New("-rate and -seconds must be at least 1, and there are no other arguments")
	}
	var p pace
	err := alone(ctx, pacedCommand, controllers, func(s *servers) error {
		c, err := openMesh(ctx, s)
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.warm(ctx, f2mesh, s); err != nil {
			return err
		}
		p, err = c.pace(ctx, s, *rate, *seconds)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Println(p)
	if err := writeJSON(*jsonFile, p); err != nil {
		return err
	}
	if p.Written != p.Rate*p.Seconds {
		return errors.New("not all messages are rows")
	}
	return nil
}

// pace sends messages at a rate, and looks for the rows of some controllers meanwhile.
func (c *consumer) pace(ctx context.Context, s *servers, rate, seconds int) (p pace, err error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return p, err
	}
	used := processes{up: s.Pid(), own: c.Pid()}
	if err := used.resetPeak(); err != nil {
		return p, err
	}
	w, err := newWatch(ctx, s)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, w.conn.Close(context.WithoutCancel(ctx))) }()
	before, err := used.measure(fs)
	if err != nil {
		return p, err
	}
	began := time.Now()
	load, err := startLoad(ctx, s, rate*seconds, rate)
	if err != nil {
		return p, err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() { watched <- w.run(watching) }()
	want := (warmUp + int64(rate*seconds)) * f2mesh.rows
	rows, _, err := c.await(ctx, want, nil)
	took := time.Since(began).Seconds()
	after, usageErr := used.measure(fs)
	stop()
	if err := errors.Join(err, usageErr, <-watched, load.Wait()); err != nil {
		return p, err
	}
	p = pace{Rate: rate, Seconds: seconds, Written: int(rows/f2mesh.rows) - warmUp, Samples: len(w.latencies)}
	p.figures = figuresOf(before, after, took, float64(rate*seconds))
	p.P50, p.P90, p.P99, p.Max = percentile(w.latencies, 50), percentile(w.latencies, 90), percentile(w.latencies, 99), percentile(w.latencies, 100)
	p.Poll = percentile(w.gaps, 99)
	sent := (load.ProcessState.UserTime() + load.ProcessState.SystemTime()).Seconds()
	if p.stages, err = readStages(ctx, s); err != nil {
		return p, err
	}
	p.Others = (after.machine-before.machine-sent)/took - p.All*p.figures.Rate/1e6
	return p, nil
}

// watch looks for new rows of some controllers. A row's time is when its controller made the message.
type watch struct {
	conn            *pgx.Conn
	devices, points []int32
	last            []time.Time
	latencies, gaps []float64 // milliseconds
}

func newWatch(ctx context.Context, s *servers) (w *watch, err error) {
	w = new(watch)
	if w.conn, err = s.Description.Superuser(ctx, s.Secrets, mesh.DatabaseTelemetry); err != nil {
		return nil, err
	}
	rows, err := w.conn.Query(ctx, "SELECT device_id, min(datapoint_id), max(time) FROM public.measurement GROUP BY device_id ORDER BY device_id LIMIT $1", sampled)
	if err != nil {
		return nil, errors.Join(err, w.conn.Close(ctx))
	}
	var device, point int32
	var last time.Time
	_, err = pgx.ForEachRow(rows, []any{&device, &point, &last}, func() error {
		w.devices, w.points, w.last = append(w.devices, device), append(w.points, point), append(w.last, last)
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, w.conn.Close(ctx))
	}
	return w, nil
}

// run looks until ctx ends.
func (w *watch) run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	before := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := w.look(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("looking for new rows: %w", err)
		}
		now := time.Now()
		w.gaps = append(w.gaps, milliseconds(now.Sub(before)))
		before = now
	}
}

// look notes the age of each row that it has not seen before.
func (w *watch) look(ctx context.Context) error {
	rows, err := w.conn.Query(ctx, `SELECT p.i, m.time FROM unnest($1::int4[], $2::int4[], $3::timestamptz[]) WITH ORDINALITY AS p (device, point, last, i)
		JOIN LATERAL (SELECT time FROM public.measurement WHERE device_id = p.device AND datapoint_id = p.point AND time > p.last ORDER BY time) m ON true`,
		w.devices, w.points, w.last)
	if err != nil {
		return err
	}
	var i int
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&i, &at}, func() error {
		w.latencies = append(w.latencies, milliseconds(time.Since(at)))
		w.last[i-1] = at
		return nil
	})
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percentile is the smallest value that n of 100 values do not exceed, or 0 of none.
func percentile(values []float64, n int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, (len(sorted)*n+99)/100-1)]
}
