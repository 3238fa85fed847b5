package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is a line of `go test -json`; `go doc test2json` describes it.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds, without the time in which a parallel test waited for its turn
}

// test is a test, a subtest, or with an empty name the package itself.
type test struct {
	name   string
	result string // pass, fail or skip; "" while it runs
	output []string
}

// report turns the events into text.
type report struct {
	out        *bufio.Writer
	verbose    bool               // print all output at once, as go test -v does
	listPassed bool               // also list the tests that passed
	running    map[string][]*test // by package, in the order of their start
	skipped    []string
	slow       []slow
	failures   bool
}

// slow is a test that took long.
type slow struct {
	name    string
	seconds float64
}

// The slowest tests are listed, if they took so many seconds.
const (
	slowest     = 15
	slowSeconds = 20
)

var (
	framing  = regexp.MustCompile(`^(=== |\s*--- PASS|PASS\n)`)
	passed   = regexp.MustCompile(`^--- PASS`)
	verdict  = regexp.MustCompile(`^\s*--- (FAIL|SKIP)`)
	routine  = regexp.MustCompile(`^\s*time=\S+ level=(DEBUG|INFO) `) // what services log
	logged   = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
	summary  = regexp.MustCompile(`^(ok  |\?   |coverage: |\t\S+\t+coverage: )`)
	disaster = regexp.MustCompile(`(?m)^(WARNING: DATA RACE|panic: |fatal error: )`)
)

// read reads the events until go test ends.
func (r *report) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "build-output", Output: string(line)} // text of go test itself
			}
			r.add(e)
		}
		if errors.Is(err, io.EOF) {
			return r.out.Flush()
		}
		if err := errors.Join(err, r.out.Flush()); err != nil {
			return err
		}
	}
}

func (r *report) add(e event) {
	switch e.Action {
	case "build-output":
		r.print(e.Output)
	case "run": // a new one, also of the same name: -count
		r.running[e.Package] = append(r.running[e.Package], &test{name: e.Test})
	case "output":
		t := r.find(e.Package, e.Test)
		t.output = append(t.output, e.Output)
		if r.verbose {
			r.print(e.Output)
		}
	case "pass", "fail", "skip":
		t := r.find(e.Package, e.Test)
		t.result = e.Action
		if e.Test == "" {
			r.endPackage(e.Package, t)
		} else if e.Action == "skip" {
			r.skipped = append(r.skipped, fmt.Sprintf("SKIPPED %s in %s (%s)", e.Test, e.Package, t.reason()))
		}
		if e.Elapsed >= slowSeconds && e.Test != "" && !strings.Contains(e.Test, "/") {
			r.slow = append(r.slow, slow{e.Test + " in " + e.Package, e.Elapsed})
		}
	}
}

func (r *report) find(pkg, name string) *test {
	for _, t := range slices.Backward(r.running[pkg]) {
		if t.name == name {
			return t
		}
	}
	t := &test{name: name}
	r.running[pkg] = append(r.running[pkg], t)
	return t
}

// endPackage prints the failed tests of a package, and its summary line.
func (r *report) endPackage(name string, pkg *test) {
	tests := r.running[name]
	delete(r.running, name)
	failed := pkg.result == "fail"
	r.failures = r.failures || failed
	if r.verbose {
		return // everything is printed
	}
	for i, t := range tests {
		if t.name == "" || strings.Contains(t.name, "/") {
			continue
		}
		if at := slices.IndexFunc(t.output, passed.MatchString); at >= 0 && r.listPassed {
			r.print(t.output[at])
		}
		for j, sub := range tests[i:] {
			if j > 0 && sub.name == t.name { // the next run of -count
				break
			}
			if failed && strings.HasPrefix(sub.name+"/", t.name+"/") {
				sub.printFailure(r)
			}
		}
	}
	for _, line := range pkg.output {
		if summary.MatchString(line) || failed && !framing.MatchString(line) {
			r.print(line)
		}
	}
}

// printFailure prints the output of a test that failed or did not end. The report of
// a data race or panic can be in the output of a test that passed.
func (t *test) printFailure(r *report) {
	text := strings.Join(t.output, "")
	if (t.result == "pass" || t.result == "skip") && !disaster.MatchString(text) {
		return
	}
	indent := strings.Repeat("    ", strings.Count(t.name, "/"))
	if at := slices.IndexFunc(t.output, verdict.MatchString); at >= 0 {
		r.print(indent + strings.TrimLeft(t.output[at], " "))
	} else {
		r.print(indent + "--- " + cmp.Or(strings.ToUpper(t.result), "UNFINISHED") + ": " + t.name + "\n")
	}
	for _, line := range t.output {
		if framing.MatchString(line) || verdict.MatchString(line) || routine.MatchString(line) {
			continue
		}
		if strings.HasPrefix(line, "    ") { // the test's own; a race report stands at the margin
			line = indent + line
		}
		r.print(line)
	}
}

// reason is what a skipped test gave to t.Skip.
func (t *test) reason() string {
	var reason []string
	for _, line := range t.output {
		switch {
		case framing.MatchString(line) || verdict.MatchString(line) || routine.MatchString(line):
		case logged.MatchString(line):
			reason = []string{logged.ReplaceAllString(line, "")} // the last of them
		default:
			reason = append(reason, line)
		}
	}
	text := strings.Join(strings.Fields(strings.Join(reason, " ")), " ")
	if text == "" {
		return "no reason given"
	}
	return text
}

// finish prints the slowest tests and the list of skipped ones.
func (r *report) finish() error {
	r.print("\n")
	slices.SortFunc(r.slow, func(a, b slow) int { return cmp.Compare(b.seconds, a.seconds) })
	for _, one := range r.slow[:min(slowest, len(r.slow))] {
		r.print(fmt.Sprintf("%6.0f s %s\n", one.seconds, one.name))
	}
	for _, line := range r.skipped {
		r.print(line + "\n")
	}
	if len(r.skipped) == 0 {
		r.print("no test was skipped\n")
	}
	return r.out.Flush()
}

func (r *report) print(text string) { _, _ = r.out.WriteString(text) } // Flush returns the error
