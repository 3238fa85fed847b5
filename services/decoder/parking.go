package decoder

import (
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

const (
	// firstPause is how long a controller whose metadata could not be read waits
	// before they are read again; it doubles up to longestPause.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// parking knows the controllers whose messages wait in PARKED because their
// metadata cannot be read now. It is safe for concurrent use.
type parking struct {
	mu      sync.Mutex
	waiting map[topic.MAC]*waiting
	changed chan struct{} // holds one item if a controller may be due
}

// waiting is what is known of one of these controllers.
type waiting struct {
	// decided and stored count the messages that batches have decided to park, and
	// those of them that PARKED has.
	decided, stored uint64
	due             time.Time // when its metadata are read again
	pause           time.Duration
	unparking       bool   // it is at work
	woken           bool   // meanwhile something has changed
	next            uint64 // where to go on in PARKED
	last            uint64 // the last message that was decoded, or the removal
}

func newParking() *parking {
	return &parking{waiting: map[topic.MAC]*waiting{}, changed: make(chan struct{}, 1)}
}

func (p *parking) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// found adds a controller that has messages in PARKED.
func (p *parking) found(mac topic.MAC) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[mac] = &waiting{next: 1}
	p.signal()
}

// joins decides to park a message of a controller that waits. It is false for all
// others.
func (p *parking) joins(mac topic.MAC) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.waiting[mac]
	if ok {
		w.decided++
	}
	return ok
}

// add decides to park the first message of a controller.
func (p *parking) add(mac topic.MAC) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[mac] = &waiting{next: 1, decided: 1}
}

// keep books messages of a controller that PARKED has now, once everything of
// their batch is stored.
func (p *parking) keep(mac topic.MAC, messages uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[mac].stored += messages
	p.signal()
}

// wake makes a controller due, or all of them if mac is empty.
func (p *parking) wake(mac topic.MAC) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for each, w := range p.waiting {
		if mac == "" || mac == each {
			w.due, w.pause, w.woken = time.Time{}, 0, true
		}
	}
	p.signal()
}

// take returns a controller that is due, or how long there is none. Until the
// first batch with messages of it is stored it is not due.
func (p *parking) take(now time.Time) (mac topic.MAC, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = longestPause
	for each, w := range p.waiting {
		if w.unparking || w.decided > 0 && w.stored == 0 {
			continue
		}
		if left := w.due.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		w.unparking, w.woken = true, false
		return each, 0
	}
	return "", wait
}

// postpone gives back a controller that must wait on: for pause, or for longer
// each time if that is 0.
func (p *parking) postpone(mac topic.MAC, now time.Time, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.waiting[mac]
	w.unparking = false
	if w.woken {
		pause = time.Nanosecond
	} else if pause == 0 {
		w.pause = min(max(firstPause, 2*w.pause), longestPause)
		pause = w.pause
	}
	w.due = now.Add(pause)
	p.signal()
}

// failed tells whether an attempt before this one did not succeed.
func (p *parking) failed(mac topic.MAC) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[mac].pause > 0
}

// mark returns a number for leave. ok is false while messages of the controller
// are on their way to PARKED.
func (p *parking) mark(mac topic.MAC) (mark uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.waiting[mac]
	return w.decided, w.decided == w.stored
}

// leave ends the wait of a controller if none of its messages was parked since
// mark.
func (p *parking) leave(mac topic.MAC, mark uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting[mac].decided != mark {
		return false
	}
	delete(p.waiting, mac)
	return true
}

// place is where unparking goes on. Only who has taken the controller asks.
func (p *parking) place(mac topic.MAC) *waiting {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[mac]
}

func (p *parking) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}
