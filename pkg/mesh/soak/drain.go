package soak

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
)

// Drain is how fast a backlog goes that came at a quarter of the maximum rate, while
// messages go on to come at the quarter.
type Drain struct {
	Held    string        `json:"held"`    // the part that was paused meanwhile
	Maximum float64       `json:"maximum"` // rows per second that are committed at most
	Quarter int           `json:"quarter"` // messages per second
	Hold    time.Duration `json:"hold_ns"` // how long the part was paused
	Took    time.Duration `json:"took_ns"` // from its end until nothing waited
	Rate    float64       `json:"rate"`    // rows per second that were committed in this time
	Ratio   float64       `json:"ratio"`   // of Rate to Quarter
	Lag     time.Duration `json:"lag_ns"`  // how old the newest row was at the end of the pause
	Problem string        `json:"problem,omitempty"`
}

// leastRatio is how much faster than it came a backlog has to drain.
const leastRatio = 3

// slow reports whether the backlog drained too slowly.
func (d Drain) slow() bool { return d.Ratio < leastRatio }

func (d Drain) String() string {
	if d.Problem != "" {
		return fmt.Sprintf("drain after the %s was held back: %s", d.Held, d.Problem)
	}
	text := fmt.Sprintf("drain after the %s was held back for %s: maximum %.0f rows/s, backlog came at %d messages/s (a quarter) and drained at %.0f rows/s in %s, ratio %.2f, required %d",
		d.Held, d.Hold, d.Maximum, d.Quarter, d.Rate, d.Took.Round(100*time.Millisecond), d.Ratio, leastRatio)
	if d.slow() {
		text += ": TOO SLOW"
	}
	return text
}

const (
	warmUp      = 2 * time.Second  // before a measurement
	fullSpeed   = 6 * time.Second  // how long the maximum rate is measured
	backlogTime = 20 * time.Second // how long a part is held back
	drainTime   = 5 * time.Minute  // how long a backlog may take to drain
	// unlimited messages per second are more than any mesh takes.
	unlimited = 1_000_000
	// lagging is how old the newest row is at least while messages wait.
	lagging = time.Second
)

// drainer holds parts of a mesh back.
type drainer struct {
	rate   *atomic.Int64 // of the controllers, messages per second
	usual  int64         // of them
	newest *newest
	pause  func(ctx context.Context, part string, pause bool) error
	query  func(context.Context) (*pgx.Conn, error)
	say    func(string)
}

// measure measures how fast backlogs go, in each part of the path: in the broker, in RAW and
// in DECODED. Its messages are judged as all others are.
func (d *drainer) measure(ctx context.Context) (drains []Drain) {
	defer d.rate.Store(d.usual)
	tables, err := d.query(ctx)
	if err == nil {
		defer func() { _ = tables.Close(context.WithoutCancel(ctx)) }()
	}
	var maximum float64
	if err == nil {
		maximum, err = d.maximum(ctx, tables)
	}
	for _, part := range []string{local.PartBridge, local.PartDecoder, local.PartWriter} {
		one := Drain{Held: part, Maximum: maximum, Quarter: int(maximum / 4), Hold: backlogTime}
		if err == nil {
			err = d.holdBack(ctx, tables, &one)
		}
		if err != nil {
			one.Problem = err.Error()
			return append(drains, one)
		}
		d.say(one.String())
		drains = append(drains, one)
	}
	return drains
}

// maximum is how many rows per second are committed at most: while the controllers send as
// fast as the broker acknowledges, which takes its part of the machine, or after it, until
// nothing waits any more. It leaves the rate at a quarter.
func (d *drainer) maximum(ctx context.Context, tables *pgx.Conn) (float64, error) {
	d.say("sending at full speed")
	d.rate.Store(unlimited)
	hold(ctx, warmUp)
	begin, err := count(ctx, tables)
	if err != nil {
		return 0, err
	}
	hold(ctx, fullSpeed)
	full, err := count(ctx, tables)
	if err != nil {
		return 0, err
	}
	d.rate.Store(d.usual)
	if err := d.caughtUp(ctx); err != nil {
		return 0, err
	}
	end, err := count(ctx, tables)
	if err != nil {
		return 0, err
	}
	maximum := max(full.since(begin), end.since(full))
	if maximum < 4 {
		return 0, errors.New("no rows are committed at full speed")
	}
	d.rate.Store(int64(maximum / 4))
	return maximum, nil
}

// holdBack pauses a part while messages come, and measures how fast they go afterwards.
func (d *drainer) holdBack(ctx context.Context, tables *pgx.Conn, one *Drain) error {
	d.say(fmt.Sprintf("holding back the %s at %d messages/s", one.Held, one.Quarter))
	hold(ctx, warmUp)
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	if err := d.pause(ctx, one.Held, true); err != nil {
		return err
	}
	hold(ctx, one.Hold)
	begin, err := count(ctx, tables) // it does not change until the part goes on
	one.Lag = d.newest.lag()
	begin.at = time.Now()
	if err := errors.Join(err, d.pause(ctx, one.Held, false)); err != nil {
		return err
	}
	if one.Lag < one.Hold/2 {
		return fmt.Errorf("no backlog came: the newest row is %s old", one.Lag.Round(time.Millisecond))
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	end, err := count(ctx, tables)
	if err != nil {
		return err
	}
	one.Took, one.Rate = end.at.Sub(begin.at), end.since(begin)
	one.Ratio = one.Rate / float64(one.Quarter)
	return nil
}

// caughtUp waits until no messages wait: each stage keeps their order, and so the newest
// row tells.
func (d *drainer) caughtUp(ctx context.Context) error {
	return within(ctx, drainTime, "no messages wait", func(context.Context) bool { return d.newest.lag() < lagging })
}

// counted is how many rows of messages there are at a time.
type counted struct {
	rows int
	at   time.Time
}

func count(ctx context.Context, tables *pgx.Conn) (c counted, err error) {
	c.at = time.Now()
	err = tables.QueryRow(ctx, "SELECT (SELECT count(*) FROM measurement) + (SELECT count(*) FROM device_event WHERE root = 'tele')").Scan(&c.rows)
	if err != nil {
		return c, fmt.Errorf("counting rows: %w", err)
	}
	return c, nil
}

// since is how many rows per second came since then.
func (c counted) since(before counted) float64 {
	return float64(c.rows-before.rows) / c.at.Sub(before.at).Seconds()
}

// drainProblems are the backlogs that could not be measured, and with judge those that went
// too slowly.
func drainProblems(drains []Drain, judge bool) (problems []string) {
	for _, d := range drains {
		if d.Problem != "" || judge && d.slow() {
			problems = append(problems, d.String())
		}
	}
	return problems
}
