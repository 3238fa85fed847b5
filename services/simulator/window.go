package simulator

import (
	"slices"
	"sync"
)

// window holds a controller's messages in order, from when they are built until they are
// acknowledged. Message n is in slot n modulo the window's size and has the packet
// identifier slot+1: a PUBACK finds its message without a map, and an identifier is free
// when its slot is.
//
// The writing goroutine pushes and rewinds, the reading one acknowledges. mu guards all
// fields. A slot's contents belong to the writer until push, and do not change from then
// until the message is acknowledged.
type window struct {
	mu      sync.Mutex
	slots   []slot
	tail    uint64 // first message that is not acknowledged
	head    uint64 // the next message to build; head-tail <= len(slots)
	written uint64 // the next message to write to this connection
	reached uint64 // the next message that was never written to any connection
	answers []command
	acks    []uint16      // packet identifiers of commands to acknowledge
	wake    chan struct{} // holds one item when the writer has something to do
}

type slot struct {
	packet       []byte // the whole PUBLISH
	topic        string
	body         int // where in packet the payload starts
	tally        tally
	acknowledged bool
}

// maxSlot is the largest packet whose memory a slot keeps for the next one.
const maxSlot = 4 << 10

// maxAnswers is how many commands may wait. Further ones are dropped, as by a controller
// with little memory.
const maxAnswers = 256

func newWindow(size int) *window {
	return &window{slots: make([]slot, size), wake: make(chan struct{}, 1)}
}

// free returns how many messages can be pushed.
func (w *window) free() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.slots) - int(w.head-w.tail) //nolint:gosec // at most len(slots)
}

// next returns the slot for the next message and its packet identifier. Only the writer
// may call it, while free() > 0.
func (w *window) next() (s *slot, id uint16) {
	i := w.head % uint64(len(w.slots))
	return &w.slots[i], uint16(i + 1) //nolint:gosec // Config limits the size
}

// push adds the message that was built in next's slot.
func (w *window) push() {
	w.mu.Lock()
	w.head++
	w.mu.Unlock()
}

// gather appends the packets that were not written to this connection yet. It returns how
// many were never written before, and how many were.
func (w *window) gather(b []byte) (_ []byte, fresh, repeated int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ; w.written < w.head; w.written++ {
		s := &w.slots[w.written%uint64(len(w.slots))]
		if s.acknowledged {
			continue
		}
		b = append(b, s.packet...)
		if w.written < w.reached {
			repeated++
			continue
		}
		w.reached = w.written + 1
		fresh++
	}
	return b, fresh, repeated
}

// rewind prepares for a new connection: everything unacknowledged is written again.
// Commands of the old connection need no PUBACK.
func (w *window) rewind() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written = w.tail
	w.acks = w.acks[:0]
}

// find returns the message that a PUBACK acknowledges, or nil if there is none.
func (w *window) find(id uint16) *slot {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := uint64(id) - 1 // wraps for 0, which is no identifier
	if i >= uint64(len(w.slots)) {
		return nil
	}
	size := uint64(len(w.slots))
	n := w.tail + (i+size-w.tail%size)%size // the message in slot i
	s := &w.slots[i]
	if n >= w.written || s.acknowledged {
		return nil
	}
	return s
}

// release frees the slot that find returned. It wakes the writer when half of the window
// becomes free, so that the writer writes many messages at once, and when all of it does.
func (w *window) release(s *slot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.acknowledged = true
	before := w.head - w.tail
	for w.tail < w.head {
		first := &w.slots[w.tail%uint64(len(w.slots))]
		if !first.acknowledged {
			break
		}
		first.acknowledged = false
		if cap(first.packet) > maxSlot {
			first.packet = nil
		}
		w.tail++
	}
	half, after := uint64(len(w.slots)/2), w.head-w.tail
	if before > half && after <= half || after == 0 {
		w.signal()
	}
}

func (w *window) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tail == w.head
}

// take adds a command for the writer, which answers and acknowledges it.
func (w *window) take(c command, ok bool, id uint16) (taken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if taken = ok && len(w.answers) < maxAnswers; taken {
		w.answers = append(w.answers, c)
	}
	if id != 0 {
		w.acks = append(w.acks, id)
	}
	w.signal()
	return taken
}

// commands removes and returns up to n commands that take added.
func (w *window) commands(n int) []command {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.answers) == 0 || n <= 0 {
		return nil
	}
	n = min(n, len(w.answers))
	list := slices.Clone(w.answers[:n])
	w.answers = slices.Delete(w.answers, 0, n)
	return list
}

// appendAcks appends the PUBACKs that are due.
func (w *window) appendAcks(b []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.acks {
		b = append(b, typePuback, 2, byte(id>>8), byte(id)) //nolint:gosec // bounded, or its low byte is what is meant
	}
	w.acks = w.acks[:0]
	return b
}

func (w *window) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
