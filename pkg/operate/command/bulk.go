package command

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
)

// Selection selects components by patterns of mac, mode, connector and component, in which *
// stands for any characters and ? for one.
type Selection map[string]string

// ParseSelection parses a text such as mode=access-control-mode,component=strike-*.
func ParseSelection(text string) (Selection, error) {
	s := Selection{}
	for part := range strings.SplitSeq(text, ",") {
		key, pattern, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := s[key]; !ok || pattern == "" || twice {
			return nil, fmt.Errorf("%q: it must be key=pattern, each key once, separated by commas", part)
		}
		switch key {
		case "mac":
			pattern = strings.ToLower(strings.NewReplacer("-", "", ":", "").Replace(pattern))
		case "connector":
			pattern = strings.TrimPrefix(pattern, "J")
		case "mode", "component":
		default:
			return nil, fmt.Errorf("%q: the key must be mac, mode, connector or component", part)
		}
		s[key] = pattern
	}
	return s, nil
}

// Matches reports whether a component is selected.
func (s Selection) Matches(t topic.Topic) bool {
	for key, value := range map[string]string{
		"mac": string(t.MAC), "mode": string(t.Mode), "connector": strconv.Itoa(t.Connector), "component": t.Component.String(),
	} {
		if pattern, ok := s[key]; ok && !access.MatchGlob(pattern, value) {
			return false
		}
	}
	return true
}

// Bulk is many commands. None is sent twice.
type Bulk struct {
	Orders []Order
	// Rate is how many are sent a second.
	Rate float64
	// MaxFailures is after how many failures no more are sent. Those that are under way
	// are waited for.
	MaxFailures int
	// Done is told of each command that has an outcome, one after the other.
	Done func(done int, line *BulkLine)
}

// BulkLine is what became of one of many commands.
type BulkLine struct {
	Command string  `json:"command"` // its subject
	Answer  *Answer `json:"answer,omitempty"`
	Error   string  `json:"error,omitempty"`
	pending bool
}

// Succeeded reports whether the command was confirmed or delivered.
func (l *BulkLine) Succeeded() bool { return l.Answer != nil && l.Answer.Succeeded() }

// BulkReport is what became of many commands.
type BulkReport struct {
	Lines     []*BulkLine `json:"lines"` // of those that were sent, in the order of their outcomes
	Succeeded int         `json:"succeeded"`
	Failed    int         `json:"failed"`
	NotSent   int         `json:"not_sent"` // after too many failures, or an interrupt
}

// maxUnderWay is how many commands of a Bulk may wait for their outcomes.
const maxUnderWay = 200

// DoAll sends many commands, each once, and returns when those that were sent have outcomes
// or ctx ends.
func (s *Sender) DoAll(ctx context.Context, b Bulk) *BulkReport {
	report := &BulkReport{}
	var (
		mu      sync.Mutex // guards report
		work    sync.WaitGroup
		limiter = rate.NewLimiter(rate.Limit(b.Rate), 1)
		room    = semaphore.NewWeighted(maxUnderWay)
	)
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return report.Failed >= b.MaxFailures
	}
	sent := 0
	for i := range b.Orders {
		if limiter.Wait(ctx) != nil || room.Acquire(ctx, 1) != nil || enough() {
			break
		}
		sent++
		work.Go(func() {
			defer room.Release(1)
			line := s.line(ctx, b.Orders[i])
			mu.Lock()
			defer mu.Unlock()
			report.Lines = append(report.Lines, line)
			if line.Succeeded() {
				report.Succeeded++
			} else {
				report.Failed++
			}
			if b.Done != nil {
				b.Done(len(report.Lines), line)
			}
		})
	}
	work.Wait()
	report.NotSent = len(b.Orders) - sent
	return report
}

func (s *Sender) line(ctx context.Context, o Order) *BulkLine {
	line := &BulkLine{Command: o.Place.CommandSubject()}
	a, err := s.Do(ctx, o)
	if err != nil {
		line.Error = err.Error()
		_, line.pending = errors.AsType[*PendingError](err)
		return line
	}
	line.Answer = &a
	return line
}

// Exit statuses of a program that sent commands.
const (
	ExitDone    = 0 // confirmed or delivered
	ExitNotDone = 3 // refused or expired: not carried out, and never will be
	ExitUnknown = 4 // it may have been carried out, or will be
)

// Succeeded reports whether the command was confirmed or delivered.
func (a *Answer) Succeeded() bool {
	return a.Outcome == outcome.Confirmed || a.Outcome == outcome.Delivered
}

// FailureError is the error of a program whose commands were not all carried out. What became
// of them is printed before.
type FailureError struct {
	Text string
	Code int // exit status
}

func (e *FailureError) Error() string { return e.Text }

// Failure returns a *FailureError unless the command succeeded.
func (a *Answer) Failure() error {
	switch {
	case a.Succeeded():
		return nil
	case a.Outcome == outcome.Unknown:
		return &FailureError{"it is not known whether the command was carried out", ExitUnknown}
	}
	return &FailureError{"the command was not carried out", ExitNotDone}
}

// Failure returns a *FailureError unless all commands succeeded.
func (r *BulkReport) Failure() error {
	if r.Failed+r.NotSent == 0 {
		return nil
	}
	code := ExitNotDone
	for _, l := range r.Lines {
		if l.pending || l.Answer != nil && l.Answer.Outcome == outcome.Unknown {
			code = ExitUnknown
		}
	}
	return &FailureError{fmt.Sprintf("%d commands failed, %d were not sent", r.Failed, r.NotSent), code}
}
