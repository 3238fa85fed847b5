package writer

import (
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// DatabaseRefuses is the alarm while the database accepts no rows and all messages wait.
const DatabaseRefuses = "database_refuses"

// alarmAfter is how long the database may accept no rows before the alarm is raised.
const alarmAfter = 3 * time.Second

const (
	// longestWait adds to the time of each outage of the database: the first attempt after
	// it may be that late.
	longestWait = time.Second
	// refusedWait is the wait after a refused login, while the credential is looked up.
	refusedWait = 250 * time.Millisecond
	// undecidedWait is the longest wait after refused rows: other controllers' messages show
	// whether the rows or the tables are at fault.
	undecidedWait = time.Second
)

// waiting is why the writer waits for the database, if it does. It is safe for concurrent
// use.
type waiting struct {
	alarms *alarm.Board
	of     string // the alarm's subject

	mu      sync.Mutex
	since   time.Time // zero: the writer does not wait
	cause   error
	backoff *backoff.ExponentialBackOff
}

func newWaiting(alarms *alarm.Board, of string) *waiting {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 100*time.Millisecond, longestWait
	b.Reset()
	return &waiting{alarms: alarms, of: of, backoff: b}
}

// begin records why an attempt failed, and returns how long to wait before the next one.
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

// end records that an attempt succeeded.
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

// now returns why the writer waits, or nil.
func (w *waiting) now() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause
}

// reason returns why the writer waits, or "" before alarmAfter.
func (w *waiting) reason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() || time.Since(w.since) < alarmAfter {
		return ""
	}
	return fault(w.cause)
}
