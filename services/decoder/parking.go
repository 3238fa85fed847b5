package decoder

import (
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

const (
	// firstPause is how long after a failure a controller's metadata are read again; it
	// doubles up to longestPause.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// parking tracks the controllers whose messages wait in PARKED because their metadata cannot
// be read. It is safe for concurrent use.
type parking struct {
	mu      sync.Mutex
	waiting map[topic.MAC]*waiting
	changed chan struct{} // holds one item if a controller may be due
}

// waiting is the state of one of these controllers.
type waiting struct {
	// decided counts the messages that batches have decided to park; stored, those of them
	// that are in PARKED.
	decided, stored uint64
	due             time.Time // when its metadata are read again
	pause           time.Duration
	unparking       bool   // it is being unparked
	woken           bool   // its metadata have changed meanwhile
	next            uint64 // the next sequence to read from PARKED
	last            uint64 // sequence of the last decoded message, or of the removal
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

// joins decides to park a message if its controller waits, and reports whether it does.
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

// keep counts messages of a controller as stored. It is called when the whole batch is stored.
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

// take returns a controller that is due, or how long to wait for one. A controller is not due
// before its first parked messages are stored.
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

// postpone has a taken controller wait again: for pause, or, if that is 0, longer each time.
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

// failed reports whether an earlier attempt failed.
func (p *parking) failed(mac topic.MAC) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[mac].pause > 0
}

// mark returns a number for leave. ok is false while messages of the controller are being
// stored on PARKED.
func (p *parking) mark(mac topic.MAC) (mark uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.waiting[mac]
	return w.decided, w.decided == w.stored
}

// leave ends a controller's wait if none of its messages was parked since mark.
func (p *parking) leave(mac topic.MAC, mark uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting[mac].decided != mark {
		return false
	}
	delete(p.waiting, mac)
	return true
}

// place returns the state of a controller. Only the goroutine that has taken the controller
// may call it.
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
