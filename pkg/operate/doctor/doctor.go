// Package doctor runs security checks against a running mesh.
//
// Checks lists the items, each a small value: what is tried, and how to fix what
// is wrong. A refusal counts only beside a control, the same attempt with the
// right credentials, that gets through: a server that is down is never taken for
// a safe one. What cannot be found out here is Skipped, never OK.
//
// The checks leave some dead letters behind, each with "doctor" in topic or
// payload, and interrupt the sessions of two demo controllers, and of whoever uses the
// operator's MQTT user, for a moment. They change nothing else. The package prints nothing and holds no state.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is how a check ended.
type State string

// The states of a check. Only Failed is an error.
const (
	OK      State = "ok"
	Warning State = "WARNING"
	Failed  State = "FAILED"
	Skipped State = "SKIPPED"
)

// Finding is what a check saw. Seen has no secrets.
type Finding struct {
	State State  `json:"state"`
	Seen  string `json:"seen"`
}

// Check is one item.
type Check struct {
	Name  string // of --only and docs/security.md
	Guide string // the section of the security guide, or why it is looked at
	Try   string // what is tried
	Fix   string // what to do if it failed
	Run   func(ctx context.Context, m *Mesh) Finding
}

// Result is a check that has run.
type Result struct {
	Name  string `json:"name"`
	Guide string `json:"guide"`
	Try   string `json:"tried"`
	Finding
	Fix string `json:"fix,omitempty"` // of what was seen to be bad
}

// checkTimeout bounds one check.
const checkTimeout = 60 * time.Second

// Checks lists all items, in the order in which they run.
func Checks() []Check {
	return slices.Concat(secretChecks(), mqttChecks(), natsChecks(), databaseChecks(),
		healthChecks(), estChecks(), tlsChecks(), networkChecks(), processChecks(), lossChecks(), streamChecks(), inputChecks(), programChecks(), vaultChecks())
}

// Run runs the checks that are named, by name or by the part before its first "-"
// (mqtt, nats, ...); all if none is. An unknown name is an error.
func Run(ctx context.Context, m *Mesh, only ...string) ([]Result, error) {
	chosen, err := choose(Checks(), only)
	if err != nil {
		return nil, err
	}
	results := make([]Result, 0, len(chosen))
	for _, c := range chosen {
		results = append(results, c.run(ctx, m))
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
	}
	return results, nil
}

func (c Check) run(ctx context.Context, m *Mesh) Result {
	bounded, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	r := Result{Name: c.Name, Guide: c.Guide, Try: c.Try}
	if reason := m.hidden(c.Name); reason != "" {
		r.Finding = notChecked("%s", reason)
	} else {
		r.Finding = c.Run(bounded, m)
	}
	if r.State != OK && r.State != Skipped {
		r.Fix = c.Fix
	}
	return r
}

func choose(all []Check, only []string) ([]Check, error) {
	if len(only) == 0 {
		return all, nil
	}
	var chosen []Check
	for _, name := range only {
		matches := slices.DeleteFunc(slices.Clone(all), func(c Check) bool {
			group, _, _ := strings.Cut(c.Name, "-")
			return c.Name != name && group != name
		})
		if len(matches) == 0 {
			return nil, fmt.Errorf("unknown check %q: `f2mesh doctor --list` shows them", name)
		}
		chosen = append(chosen, matches...)
	}
	return chosen, nil
}

// ErrFailed is returned by Verdict.
var ErrFailed = errors.New("the security check failed")

// Verdict is an error if a check failed, or is in another of the states that are not
// good enough, and the exit status of CI.
func Verdict(results []Result, neither ...State) error {
	var names []string
	for _, r := range results {
		if r.State == Failed || slices.Contains(neither, r.State) {
			names = append(names, r.Name)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %s", ErrFailed, strings.Join(names, ", "))
	}
	return nil
}

func ok(format string, args ...any) Finding { return Finding{OK, fmt.Sprintf(format, args...)} }
func warning(format string, args ...any) Finding {
	return Finding{Warning, fmt.Sprintf(format, args...)}
}

func failed(format string, args ...any) Finding { return Finding{Failed, fmt.Sprintf(format, args...)} }

func notChecked(format string, args ...any) Finding {
	return Finding{Skipped, fmt.Sprintf(format, args...)}
}

// verdict is failed with the problems, or else what good says.
func verdict(problems []string, good string, args ...any) Finding {
	if len(problems) > 0 {
		return failed("%s", strings.Join(problems, "; "))
	}
	return ok(good, args...)
}

// attempt is something that has to be refused, and the same thing with the right
// credentials, which has to work: else nothing is proved.
type attempt struct {
	name         string
	control, try func() error
}

// refused tries all of them.
func refused(attempts []attempt) Finding {
	var problems []string
	for _, a := range attempts {
		if err := a.control(); err != nil {
			problems = append(problems, fmt.Sprintf("%s: cannot be tried, the control was refused: %v", a.name, err))
		} else if a.try() == nil {
			problems = append(problems, a.name+": let in")
		}
	}
	return verdict(problems, "refused: %s", names(attempts))
}

func names(attempts []attempt) string {
	all := make([]string, len(attempts))
	for i, a := range attempts {
		all[i] = a.name
	}
	return strings.Join(all, ", ")
}
