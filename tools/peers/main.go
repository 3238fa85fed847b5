// Peers measures f2mesh and Telegraf side by side: the same load, Mosquitto and PostgreSQL, in turns. It
// prints the medians of some pairs of runs, and the ratios between the two. docs/performance.md describes it.
//
// `peers paced` measures f2mesh alone: the time from publish to row, at a constant rate. `peers fleet` measures it with
// thousands of controllers, and `peers steady` for a long time.
//
// It runs in the root of the project, with bin/f2mesh and bin/tools/telegraf. Each run has a mesh
// of its own: a new broker and a new database.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// Modes of a run: what the load and the consumer do at the same time.
const (
	live  = "live"  // the consumer runs while the load comes
	drain = "drain" // the consumer is paused until Mosquitto has the whole load
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := compare
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case loadCommand:
			run = load
		case pacedCommand:
			run = paced
		case fleetCommand:
			run = measureFleet
		case steadyCommand:
			run = steady
		}
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

// compare runs all pairs and prints the report.
func compare(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("peers", flag.ExitOnError)
	messages := flags.Int("messages", 200_000, "messages of a run")
	pairs := flags.Int("pairs", 5, "pairs of runs, in each mode")
	modes := flags.String("modes", live+","+drain, "modes to measure, separated by commas")
	jsonFile := flags.String("json", "", "also write the report as JSON to this `file`")
	_ = flags.Parse(args) // it exits
	chosen := strings.Split(*modes, ",")
	for _, mode := range chosen {
		if mode != live && mode != drain {
			return fmt.Errorf("unknown mode %q; known: %s, %s", mode, live, drain)
		}
	}
	if *messages < 1 || *pairs < 1 || flags.NArg() > 0 {
		return errors.New("-messages and -pairs must be at least 1, and there are no other arguments")
	}
	r := report{Messages: *messages, Controllers: controllers, Pairs: *pairs}
	for _, mode := range chosen {
		for pair := range *pairs {
			systems := []system{f2mesh, telegraf}
			if pair%2 == 1 { // what the first run leaves behind, such as a busy disk, hits both
				slices.Reverse(systems)
			}
			for _, s := range systems {
				fmt.Fprintf(os.Stderr, "%s, pair %d of %d: %s\n", mode, pair+1, *pairs, s.name)
				one, err := measure(ctx, s, mode, *messages)
				if err != nil {
					return fmt.Errorf("measuring %s (%s): %w", s.name, mode, err)
				}
				one.Pair = pair + 1
				r.Runs = append(r.Runs, one)
				fmt.Fprintln(os.Stderr, "  "+one.String())
			}
		}
		r.Results = append(r.Results, summarize(mode, r.Runs))
	}
	err := errors.Join(r.writeText(os.Stdout), writeJSON(*jsonFile, r))
	return cmp.Or(err, r.incomplete())
}
