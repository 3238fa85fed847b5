package command

import (
	"sync"
	"time"
)

// fate is how far an attempt to publish has come.
type fate uint8

const (
	unsent    fate = iota // nothing was written
	offered               // written, and the broker has not answered yet
	withdrawn             // written, and never published
	released              // it was told to publish it: whether it did is not known
	taken                 // published
)

// attempt is one attempt to publish a command. There is never a second one once it
// is offered.
type attempt struct {
	limit time.Time // the latest moment at which it may be released

	mu   sync.Mutex
	fate fate
}

// offer notes that the PUBLISH is about to be written.
func (a *attempt) offer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fate == unsent {
		a.fate = offered
	}
}

// release tells whether the broker may be told to publish it.
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

// end gives the attempt up, if it is not released by now, and answers its fate.
func (a *attempt) end() fate {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fate == offered {
		a.fate = withdrawn
	}
	return a.fate
}

const (
	// granularity is what an expiry, in whole seconds of the broker's clock, may
	// be over.
	granularity = time.Second
	// maxPatience is the longest that the broker may take to answer a PUBLISH.
	maxPatience = 5 * time.Second
)

// schedule gives how long the broker may keep a command that may not be given out
// after deadline, in seconds, and until when it may be released. The broker starts
// to count when it reads the PUBLISH, at the latest when it is released, so both
// together, and the second that the broker's clock does not tell, end by deadline.
// ok is false if there is no time left.
func schedule(now, deadline time.Time) (expiry uint32, limit time.Time, ok bool) {
	left := deadline.Sub(now)
	patience := min(left/3, maxPatience)
	seconds := (left - patience - granularity) / time.Second
	if seconds < 1 {
		return 0, time.Time{}, false
	}
	return uint32(seconds), deadline.Add(-seconds*time.Second - granularity), true //nolint:gosec // bounded by Config
}
