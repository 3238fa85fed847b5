// Package doctor runs security checks against a running mesh.
//
// A check is an entry of the table in checks.go, which says what is tried and how to fix what is
// wrong, and one function. A refusal counts only beside a control: the same attempt with valid
// credentials, which must succeed. A server that is down is therefore never taken for a safe
// one. What cannot be checked from here is Skipped, never OK.
//
// A function that checks is written like a test: must, ensure and need end it early, where a
// step fails that it needs (Failed) or where it does not apply to this mesh (Skipped).
//
// The checks leave some dead letters, each with "doctor" in its topic or payload. They
// interrupt, for a moment, the sessions of two demo controllers and of MQTT user operator. They
// change nothing else. The package holds no state.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Verdict is the outcome of a check.
type Verdict string

// The states of a check. Only Failed is an error.
const (
	OK      Verdict = "ok"
	Warning Verdict = "WARNING"
	Failed  Verdict = "FAILED"
	Skipped Verdict = "SKIPPED"
)

// Finding is what a check saw. Seen has no secrets.
type Finding struct {
	State Verdict `json:"state"`
	Seen  string  `json:"seen"`
}

// Check is one item.
type Check struct {
	Name  string // as --only and docs/security.md have it
	Guide string // the section of the security guide, or why it is checked
	Run   func(ctx context.Context, t *Target) Finding
	Try   string // what it tries
	Fix   string // what to do if it failed
}

// Run runs the checks that are named, by name or by the part before its first "-" (mqtt,
// nats, ...); without names, all. An unknown name is an error.
func Run(ctx context.Context, t *Target, only ...string) (Results, error) {
	chosen, err := choose(Checks(), only)
	if err != nil {
		return nil, err
	}
	results := make(Results, 0, len(chosen))
	for _, c := range chosen {
		results = append(results, c.result(ctx, t))
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
	}
	return results, nil
}

func choose(all List, only []string) (List, error) {
	if len(only) == 0 {
		return all, nil
	}
	var chosen List
	for _, name := range only {
		before := len(chosen)
		for _, c := range all {
			if group, _, _ := strings.Cut(c.Name, "-"); name == c.Name || name == group {
				chosen = append(chosen, c)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("unknown check %q: `f2mesh doctor --list` shows them all", name)
		}
	}
	return chosen, nil
}

func (c Check) result(ctx context.Context, t *Target) CheckResult {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	f, err := catch(func() Finding { return c.Run(ctx, t) })
	if err != nil {
		f = failed("the check could not run: %v", err)
	}
	r := CheckResult{Name: c.Name, Guide: c.Guide, Try: c.Try, Finding: f}
	if f.State == Failed || f.State == Warning {
		r.Fix = c.Fix
	}
	return r
}

// must returns value. On an error it ends the check, as ensure does.
func must[T any](value T, err error) T {
	ensure(err)
	return value
}

// ensure ends the check if a step that it needs failed.
func ensure(err error) {
	if err != nil {
		panic(stepError{err})
	}
}

// need ends the check, as Skipped, if it does not apply.
func need(applies bool, reason string, args ...any) {
	if !applies {
		panic(skipped(reason, args...))
	}
}

// stepError is what ensure panics with.
type stepError struct{ error }

// catch runs what ensure or need may end. The error is that of a step.
func catch(run func() Finding) (f Finding, err error) {
	defer func() {
		switch cause := recover().(type) {
		case nil:
		case Finding:
			f = cause
		case stepError:
			err = cause.error
		default:
			panic(cause)
		}
	}()
	return run(), nil
}

func ok(text string, args ...any) Finding      { return Finding{OK, fmt.Sprintf(text, args...)} }
func warning(text string, args ...any) Finding { return Finding{Warning, fmt.Sprintf(text, args...)} }

func failed(text string, args ...any) Finding { return Finding{Failed, fmt.Sprintf(text, args...)} }

func skipped(text string, args ...any) Finding { return Finding{Skipped, fmt.Sprintf(text, args...)} }

// verdict is Failed with the problems, or OK with what good says.
func verdict(problems []string, good string, args ...any) Finding {
	if len(problems) > 0 {
		return failed("%s", strings.Join(problems, "; "))
	}
	return ok(good, args...)
}

// attempt is something that must be refused, and its control: the same with valid
// credentials, which must succeed. Without it a refusal proves nothing.
type attempt struct {
	name         string
	control, try func() error
}

// refused makes all attempts. One that is not refused is a problem, and one that proves nothing.
func refused(attempts ...attempt) Finding {
	var names, problems []string
	for _, a := range attempts {
		names = append(names, a.name)
		if err := a.control(); err != nil {
			problems = append(problems, fmt.Sprintf("%s: not tested: the same attempt with valid credentials failed: %v", a.name, err))
		} else if a.try() == nil {
			problems = append(problems, a.name+": accepted")
		}
	}
	return verdict(problems, "refused: %s", strings.Join(names, ", "))
}
