package health

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

// WriteTo writes the status for people: tables of stages, streams and alarms.
func (s *MeshStatus) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "STAGE\tHEALTH\tMSG/S\tLAG\tREDELIVERED\tDEAD LETTERS\t")
	for _, l := range s.Stages {
		state := "ready"
		if !l.Ready {
			state = "NOT READY"
		}
		lag, redelivered := strconv.FormatUint(l.Lag, 10), strconv.Itoa(l.Redeliver)
		if l.Stage == "bridge" { // the broker has its messages, and does not count them
			lag, redelivered = "-", "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%.0f\t%s\t%s\t%.0f\t\n", l.Stage, state, l.Rate, lag, redelivered, l.Dead)
	}
	fmt.Fprintln(table, "\nSTREAM\tMESSAGES\tBYTES\tOF\tFULL IN\tROOM FOR\t")
	for _, l := range s.Streams {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t\n",
			l.Stream, l.Messages, mebibytes(l.Bytes), mebibytes(uint64(max(0, l.MaxBytes))), readableDays(l.FullIn), readableDays(l.Room))
	}
	if err := table.Flush(); err != nil {
		return 0, err
	}
	s.writeNodes(&b)
	for _, l := range s.Stages {
		if l.Cause != "" {
			fmt.Fprintf(&b, "%s: %s\n", l.Stage, plain.Text(l.Cause))
		}
	}
	if err := s.writeAlarms(&b); err != nil {
		return 0, err
	}
	return b.WriteTo(w)
}

// writeNodes writes which servers of a cluster lead which streams, and what the others lack.
func (s *MeshStatus) writeNodes(b *bytes.Buffer) {
	leads := map[string][]string{}
	for _, l := range s.Streams {
		if l.Leader != "" {
			leads[l.Leader] = append(leads[l.Leader], l.Stream)
		}
	}
	if len(leads) > 0 {
		fmt.Fprintln(b)
	}
	for _, node := range slices.Sorted(maps.Keys(leads)) {
		fmt.Fprintf(b, "%s leads %s\n", plain.Text(node), strings.Join(leads[node], ", "))
	}
	for _, l := range s.Streams {
		for _, problem := range l.Behind {
			fmt.Fprintf(b, "%s: %s\n", l.Stream, plain.Text(problem))
		}
	}
}

// shownAlarms is how many alarms the table has. In JSON there are more.
const shownAlarms = 20

// writeAlarms writes the raised alarms, and which services did not respond: those could have
// alarms, too.
func (s *MeshStatus) writeAlarms(b *bytes.Buffer) error {
	for _, name := range Watchers() {
		if !slices.Contains(s.Watching, name) {
			fmt.Fprintf(b, "\n%s does not respond: its alarms are unknown\n", name)
		}
	}
	if len(s.Alarms) == 0 {
		fmt.Fprintln(b, "\nno alarm is raised")
		return nil
	}
	fmt.Fprintln(b)
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ALARM\tABOUT\tFROM\tSINCE\tDETAIL")
	for _, a := range s.Alarms[:min(len(s.Alarms), shownAlarms)] {
		since := "-"
		if !a.Since.IsZero() {
			since = a.Since.Local().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", plain.Text(a.Kind), plain.Text(a.Subject), plain.Text(a.Service), since, plain.Text(a.Detail))
	}
	if more := s.AlarmsRaised - shownAlarms; more > 0 {
		fmt.Fprintf(table, "and %d older ones; --json shows more of them\n", more)
	}
	return table.Flush()
}

// readableDays formats a time in seconds; 0 is unknown.
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
