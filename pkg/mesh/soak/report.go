package soak

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// RunReport is what one run showed.
type RunReport struct {
	Seed      uint64        `json:"seed"`
	Control   string        `json:"control,omitempty"` // what was taken away on purpose
	Started   time.Time     `json:"started"`
	Sending   time.Duration `json:"sending_ns"`
	Settling  time.Duration `json:"settling_ns"` // from the last message to nothing pending
	Unsettled string        `json:"unsettled,omitempty"`
	Broken    string        `json:"broken,omitempty"` // why the run ended early; nothing was judged
	Bound     time.Duration `json:"broker_bound_ns"`

	Fates          Fates             `json:"messages"`
	JetStream      Kept              `json:"jetstream"`
	Commands       CommandTotals     `json:"commands"`
	LedgerBalanced bool              `json:"ledger_balanced"`   // but for the next
	LedgerNotInRAW int               `json:"ledger_not_in_raw"` // acknowledged messages that RAW never had
	Ledger         string            `json:"ledger,omitempty"`  // what f2mesh audit prints, if it does not balance
	Faults         []Fault           `json:"faults"`
	NotHere        map[string]string `json:"not_on_this_machine,omitempty"` // kinds of faults

	Recoveries map[string]Recovery `json:"recoveries,omitempty"` // of kills, by group
	Drains     []Drain             `json:"drains,omitempty"`
	JudgeSpeed bool                `json:"judge_speed"` // a slow recovery or drain is a problem

	brokerEnds []time.Time
}

// Problems are what breaks the promises, none if the run passed.
func (r *RunReport) Problems() (problems []string) {
	add := func(n int, text string) {
		if n > 0 {
			problems = append(problems, fmt.Sprintf("%d %s", n, text))
		}
	}
	if r.Broken != "" {
		return []string{r.Broken}
	}
	v := r.Fates
	add(v.Lost, "messages are lost")
	add(v.Doubled, "messages are doubled")
	add(v.Altered, "messages are altered")
	add(v.Unknown, "messages or rows are nobody's")
	add(r.JetStream.Missing, "messages that JetStream acknowledged are missing")
	add(r.Commands.Unanswered, "commands have no outcome")
	add(r.Commands.Doubled, "commands were carried out twice")
	add(r.Commands.Late, "commands were carried out late")
	add(r.Commands.Untrue, "commands have an outcome that is not true")
	if r.Unsettled != "" {
		problems = append(problems, r.Unsettled)
	}
	if sound := v.Doubled == 0 && v.Lost == v.NotInRAW-v.AtBroker; sound != r.LedgerBalanced && r.Unsettled == "" {
		problems = append(problems, fmt.Sprintf("f2mesh audit disagrees: balanced is %t", r.LedgerBalanced))
	}
	if v.NotInRAW != r.LedgerNotInRAW {
		problems = append(problems, fmt.Sprintf("f2mesh audit disagrees: RAW never had %d acknowledged messages, not %d", r.LedgerNotInRAW, v.NotInRAW))
	}
	for _, f := range r.Faults {
		if f.Problem != "" {
			problems = append(problems, fmt.Sprintf("%s: %s", f, f.Problem))
		}
	}
	if r.JudgeSpeed {
		problems = append(problems, slowRecoveries(r.Recoveries)...)
	}
	return append(problems, drainProblems(r.Drains, r.JudgeSpeed)...)
}

// WriteTo writes the report for people.
func (r *RunReport) WriteTo(out io.Writer) (int64, error) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	v := r.Fates
	row := func(name string, value any, note string) { fmt.Fprintf(w, "%s\t%v\t%s\n", name, value, note) }
	row("seed", r.Seed, "")
	row("faults", len(r.Faults), r.kinds())
	row("sent", v.Sent, fmt.Sprintf("in %s, %d repeated by controllers", r.Sending.Round(time.Second), v.Repeated))
	row("acknowledged by the broker", v.Acknowledged, "")
	row("written", v.Written, fmt.Sprintf("%d rows marked as possible repeats", v.Marked))
	row("dead-lettered", v.DeadLettered, "as expected")
	row("lost at the broker", v.AtBroker, fmt.Sprintf("acknowledged at most %s before its end; bound %s", v.BrokerWindow.Round(time.Millisecond), r.Bound))
	row("lost", v.Lost, "")
	row("doubled", v.Doubled, "")
	row("altered", v.Altered, "")
	row("nobody's", v.Unknown, "")
	row("JetStream kept", fmt.Sprintf("%d of %d", r.JetStream.Acknowledged-r.JetStream.Missing, r.JetStream.Acknowledged), "acknowledged messages of a stream of its own")
	row("commands", r.Commands.Sent, outcomes(r.Commands))
	row("ledger", map[bool]string{true: "balances", false: "does not balance"}[r.LedgerBalanced], fmt.Sprintf("%d acknowledged messages never reached RAW", r.LedgerNotInRAW))
	row("settled", r.Settling.Round(time.Millisecond), "after the last message")
	fmt.Fprintln(w)
	row("recovery from", "p50", "p99")
	for _, name := range slices.Sorted(maps.Keys(r.Recoveries)) {
		one := r.Recoveries[name]
		row("  the kill of "+name, one.P50.Round(time.Millisecond), fmt.Sprintf("%s of %d, may be %s%s", one.P99.Round(time.Millisecond), one.Kills, one.Bound, map[bool]string{true: ": TOO SLOW"}[one.slow()]))
	}
	groups := recoveryTimes(r.Faults)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		of := groups[name]
		row("  "+name, percentile(of, 50).Round(time.Millisecond), fmt.Sprintf("%s of %d", percentile(of, 99).Round(time.Millisecond), len(of)))
	}
	_ = w.Flush()
	for _, d := range r.Drains {
		fmt.Fprintln(&b, d)
	}
	for _, name := range slices.Sorted(maps.Keys(r.NotHere)) {
		fmt.Fprintf(&b, "SKIPPED %s (%s)\n", name, r.NotHere[name])
	}
	for _, e := range v.Examples {
		fmt.Fprintf(&b, "%s: %s %d of controller %s, acknowledged %s; sent %d times, %d in RAW, %d rows and %d marked\n",
			e.Fate, e.Kind, e.Number, e.MAC, e.Acked.Format(time.RFC3339Nano), e.Sends, e.InRAW, e.Rows, e.Repeats)
	}
	for _, c := range r.Commands.Examples {
		fmt.Fprintln(&b, "command", c)
	}
	for _, p := range r.Problems() {
		fmt.Fprintln(&b, "PROBLEM", p)
	}
	if r.Ledger != "" {
		fmt.Fprintf(&b, "\nf2mesh audit:\n%s", r.Ledger)
	}
	n, err := io.WriteString(out, b.String())
	return int64(n), err
}

func (r *RunReport) kinds() string {
	counts := map[string]int{}
	for _, f := range r.Faults {
		counts[f.Kind]++
	}
	texts := []string{}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		texts = append(texts, fmt.Sprintf("%d %s", counts[name], name))
	}
	return strings.Join(texts, ", ")
}

func outcomes(t CommandTotals) string {
	texts := []string{}
	for _, name := range slices.Sorted(maps.Keys(t.Outcomes)) {
		texts = append(texts, fmt.Sprintf("%d %s", t.Outcomes[name], name))
	}
	if t.Held > 0 {
		texts = append(texts, fmt.Sprintf("%d late out of an interrupted connection", t.Held))
	}
	return strings.Join(texts, ", ")
}
