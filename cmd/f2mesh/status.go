package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
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
		err = printStatus(s, os.Stdout)
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

func printStatus(s *monitor.Status, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "STAGE\tHEALTH\tMSG/S\tLAG\tREDELIVERED\tDEAD LETTERS\t")
	for _, l := range s.Stages {
		state := "ready"
		if !l.Ready {
			state = "NOT READY"
		}
		lag, redelivered := strconv.FormatUint(l.Lag, 10), strconv.Itoa(l.Redeliver)
		if l.Stage == "bridge" { // what waits for it is in the broker, which does not tell
			lag, redelivered = "-", "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%.0f\t%s\t%s\t%.0f\t\n", l.Stage, state, l.Rate, lag, redelivered, l.Dead)
	}
	fmt.Fprintln(table, "\nSTREAM\tMESSAGES\tBYTES\tOF\tFULL IN\tROOM FOR\t")
	for _, l := range s.Streams {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t\n", l.Stream, l.Messages, mebibytes(l.Bytes), mebibytes(uint64(max(0, l.MaxBytes))), readableDays(l.FullIn), readableDays(l.Room))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, l := range s.Stages {
		if l.Cause != "" {
			fmt.Fprintf(out, "%s: %s\n", l.Stage, plain.Text(l.Cause))
		}
	}
	return printAlarms(s, out)
}

// shownAlarms is how many alarms the screen has; --json has more.
const shownAlarms = 20

// printAlarms prints what is raised, and who could not be asked: without its
// watchers a mesh is only quiet.
func printAlarms(s *monitor.Status, out io.Writer) error {
	for _, name := range monitor.Watchers() {
		if !slices.Contains(s.Watching, name) {
			fmt.Fprintf(out, "\n%s does not answer: its alarms are not known\n", name)
		}
	}
	if len(s.Alarms) == 0 {
		_, err := fmt.Fprintln(out, "\nno alarm is raised")
		return err
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, cells("ALARM", "ABOUT", "FROM", "SINCE", "DETAIL"))
	for _, a := range s.Alarms[:min(len(s.Alarms), shownAlarms)] {
		since := "-"
		if !a.Since.IsZero() {
			since = a.Since.Local().Format(time.RFC3339)
		}
		fmt.Fprint(table, cells(a.Kind, a.Subject, a.Service, since, a.Detail))
	}
	if more := s.AlarmsRaised - shownAlarms; more > 0 {
		fmt.Fprintf(table, "and %d older ones; --json has more of them\n", more)
	}
	return table.Flush()
}

// readableDays is a time in seconds that the keeper told, to read.
func readableDays(seconds float64) string {
	switch {
	case seconds == 0:
		return "-"
	case seconds >= 86400:
		return fmt.Sprintf("%.1f days", seconds/86400)
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
