package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// figures are what a run reached. CPU time is in microseconds a message.
type figures struct {
	Rate       float64 `json:"messages_per_second"`
	Own        float64 `json:"cpu_own_us"` // of the consumer; f2mesh's with PgBouncer
	Mosquitto  float64 `json:"cpu_mosquitto_us"`
	PostgreSQL float64 `json:"cpu_postgresql_us"`
	All        float64 `json:"cpu_all_us"` // of the three
	Memory     float64 `json:"peak_memory_mib"`
}

// fields are all figures, in the order of the columns.
func (f *figures) fields() []*float64 {
	return []*float64{&f.Rate, &f.Own, &f.Mosquitto, &f.PostgreSQL, &f.All, &f.Memory}
}

// result is one run.
type result struct {
	System   string  `json:"system"`
	Mode     string  `json:"mode"`
	Pair     int     `json:"pair"`
	Messages int     `json:"messages"`
	Written  float64 `json:"written"` // messages that are rows in the end
	Seconds  float64 `json:"seconds"`
	figures
	Load   float64 `json:"cpu_load_us"` // of the load generator; 0 in a drain, which begins after it
	Others float64 `json:"other_cores"` // how many cores other processes of the machine used
}

func (r *result) complete() bool { return r.Written == float64(r.Messages) }

func (r *result) String() string {
	text := fmt.Sprintf("%s, %s: %.0f messages/s in %.1f s, CPU a message %.0f µs, load generator %.0f µs, peak memory %.0f MiB, other processes used %.1f cores",
		r.System, r.Mode, r.Rate, r.Seconds, r.All, r.Load, r.Memory, r.Others)
	switch missing := float64(r.Messages) - r.Written; {
	case missing > 0:
		text += fmt.Sprintf(": %g of %d MESSAGES LOST", missing, r.Messages)
	case missing < 0:
		text += fmt.Sprintf(": %g of %d MESSAGES DOUBLED", -missing, r.Messages)
	}
	return text
}

// figuresOf are the figures of a measurement.
func figuresOf(before, after usage, seconds, messages float64) figures {
	each := func(before, after float64) float64 { return (after - before) / messages * 1e6 }
	f := figures{
		Rate: messages / seconds, Own: each(before.own, after.own), Mosquitto: each(before.mosquitto, after.mosquitto),
		PostgreSQL: each(before.postgres, after.postgres), Memory: float64(after.peak) / (1 << 20),
	}
	f.All = f.Own + f.Mosquitto + f.PostgreSQL
	return f
}

// summary is all runs of a mode: the medians of each system, and the medians of the pairs' ratios of
// f2mesh to Telegraf. Pairs with an incomplete run are left out.
type summary struct {
	Mode     string  `json:"mode"`
	Pairs    int     `json:"complete_pairs"`
	F2mesh   figures `json:"f2mesh"`
	Telegraf figures `json:"telegraf"`
	Ratio    figures `json:"ratio"`
	Others   float64 `json:"other_cores"`
}

func summarize(mode string, runs []result) summary {
	pairs := map[int]map[string]*result{}
	for i := range runs {
		if r := &runs[i]; r.Mode == mode && r.complete() {
			if pairs[r.Pair] == nil {
				pairs[r.Pair] = map[string]*result{}
			}
			pairs[r.Pair][r.System] = r
		}
	}
	var ours, theirs, ratios []figures
	var others []float64
	for _, pair := range pairs {
		a, b := pair[f2mesh.name], pair[telegraf.name]
		if a == nil || b == nil {
			continue
		}
		ours, theirs, ratios = append(ours, a.figures), append(theirs, b.figures), append(ratios, ratio(a.figures, b.figures))
		others = append(others, a.Others, b.Others)
	}
	return summary{Mode: mode, Pairs: len(ours), F2mesh: medians(ours), Telegraf: medians(theirs), Ratio: medians(ratios), Others: median(others)}
}

// ratio is 0 where a figure was too small to measure.
func ratio(a, b figures) (r figures) {
	to, from, by := r.fields(), a.fields(), b.fields()
	for i := range to {
		if *by[i] > 0 {
			*to[i] = *from[i] / *by[i]
		}
	}
	return r
}

// medians are those of each figure.
func medians(all []figures) (m figures) {
	for i, to := range m.fields() {
		var values []float64
		for _, one := range all {
			values = append(values, *one.fields()[i])
		}
		*to = median(values)
	}
	return m
}

func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// report is the whole comparison.
type report struct {
	Messages    int       `json:"messages"` // of a run
	Controllers int       `json:"controllers"`
	Pairs       int       `json:"pairs"`
	Results     []summary `json:"results"`
	Runs        []result  `json:"runs"`
}

// writeText writes the report for people.
func (r *report) writeText(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, s := range r.Results {
		fmt.Fprintf(table, "\n%s: medians of %d complete pairs of %d, %d messages a run from %d controllers; other processes used %.1f cores\n",
			s.Mode, s.Pairs, r.Pairs, r.Messages, r.Controllers, s.Others)
		fmt.Fprintln(table, "\tmessages/s\tCPU µs a message: own\tMosquitto\tPostgreSQL\tall\tpeak memory MiB\t")
		for _, line := range []struct {
			name, format string
			figures      figures
		}{{f2mesh.name, "%.0f\t", s.F2mesh}, {telegraf.name, "%.0f\t", s.Telegraf}, {"ratio", "%.2f\t", s.Ratio}} {
			fmt.Fprint(table, line.name, "\t")
			for _, f := range line.figures.fields() {
				fmt.Fprintf(table, line.format, *f)
			}
			fmt.Fprintln(table)
		}
	}
	return table.Flush()
}

// writeJSON writes a result to a file, if there is a name.
func writeJSON(file string, result any) error {
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644) //nolint:gosec // nothing secret
}

// incomplete is an error that names the runs that lost or doubled messages.
func (r *report) incomplete() error {
	var texts []string
	for i := range r.Runs {
		if one := &r.Runs[i]; !one.complete() {
			texts = append(texts, one.String())
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("%d runs are incomplete:\n%s", len(texts), strings.Join(texts, "\n"))
}
