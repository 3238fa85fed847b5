package writer

import (
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// DatabaseRefuses is the alarm while the database does not take rows and everything
// waits for it.
const DatabaseRefuses = "database_refuses"

// alarmAfter is how long the database may not write before that is an alarm.
const alarmAfter = 3 * time.Second

const (
	longestWait = 5 * time.Second
	// refusedWait is how long a refused login waits for another attempt: its
	// credential is being looked up.
	refusedWait = 250 * time.Millisecond
	// undecidedWait is the longest wait where the tables take rows: other controllers'
	// messages then show what is wrong with those at hand.
	undecidedWait = time.Second
)

// waiting is what the writer waits for, if it does. It is safe for concurrent use.
type waiting struct {
	alarms *alarm.Board
	of     string // what waits: the alarm's subject

	mu      sync.Mutex
	since   time.Time // zero: it does not wait
	cause   error
	backoff *backoff.ExponentialBackOff
}

func newWaiting(alarms *alarm.Board, of string) *waiting {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 100*time.Millisecond, longestWait
	b.Reset()
	return &waiting{alarms: alarms, of: of, backoff: b}
}

// begin notes why the database does not write, and returns how long to wait before
// the next attempt.
func (w *waiting) begin(cause error) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.since.IsZero() {
		w.since = now
	}
	w.cause = cause
	if now.Sub(w.since) >= alarmAfter {
		w.alarms.Raise(DatabaseRefuses, w.of, fault(cause))
	}
	if postgres.Refused(cause) {
		return refusedWait
	}
	next := w.backoff.NextBackOff()
	if outcomeOf(cause) == refused {
		next = min(next, undecidedWait)
	}
	return next
}

// end notes that the database writes.
func (w *waiting) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		return
	}
	w.since, w.cause = time.Time{}, nil
	w.backoff.Reset()
	w.alarms.Clear(DatabaseRefuses, w.of)
}

// now is why the writer waits, or nil.
func (w *waiting) now() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause
}

// reason is empty while the writer does not wait, or has for a moment only.
func (w *waiting) reason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() || time.Since(w.since) < alarmAfter {
		return ""
	}
	return fault(w.cause)
}
