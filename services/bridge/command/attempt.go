package command

import (
	"sync"
	"time"
)

// fate is the state of an attempt to publish.
type fate uint8

const (
	unsent    fate = iota // PUBLISH was not written
	offered               // PUBLISH was written, PUBREC has not come yet
	withdrawn             // PUBLISH was written, PUBREL never will be: it is not published
	released              // PUBREL was written: the broker may have published it
	taken                 // PUBCOMP came: published
)

// attempt is one attempt to publish a command. There is never a second attempt once it is
// offered.
type attempt struct {
	limit time.Time // the latest time at which it may be released

	mu   sync.Mutex
	fate fate
}

// offer records that PUBLISH is about to be written.
func (a *attempt) offer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fate == unsent {
		a.fate = offered
	}
}

// release reports whether PUBREL may be written now.
func (a *attempt) release(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.fate != offered:
		return false
	case now.After(a.limit):
		a.fate = withdrawn
		return false
	}
	a.fate = released
	return true
}

func (a *attempt) take() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fate == released {
		a.fate = taken
	}
}

// end withdraws the attempt unless it is released, and returns its fate.
func (a *attempt) end() fate {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fate == offered {
		a.fate = withdrawn
	}
	return a.fate
}

const (
	// granularity is by how much a message may outlive its expiry: the broker's clock
	// counts whole seconds.
	granularity = time.Second
	// maxPatience is how long the broker may take at most to respond to a PUBLISH.
	maxPatience = 5 * time.Second
)

// schedule returns the expiry, in seconds, of a command that must not be delivered after
// deadline, and the latest time at which it may be released. The broker counts the expiry
// from when it reads the PUBLISH, which is before the release. So limit, expiry and
// granularity together end by deadline. ok is false if there is no time left.
func schedule(now, deadline time.Time) (expiry uint32, limit time.Time, ok bool) {
	left := deadline.Sub(now)
	patience := min(left/3, maxPatience)
	seconds := (left - patience - granularity) / time.Second
	if seconds < 1 {
		return 0, time.Time{}, false
	}
	return uint32(seconds), deadline.Add(-seconds*time.Second - granularity), true //nolint:gosec // bounded by Config
}
