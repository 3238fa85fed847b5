package writer

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// apart writes the messages of controllers whose rows PostgreSQL refuses or does not finish
// in time. The messages of other controllers do not wait for them. The messages of each
// controller keep their order. The memory is limited: when it is full, the older half of
// the messages of the controller with the most become dead letters without an attempt.
type apart struct {
	w        *Writer
	accepted atomic.Bool      // rows were written since pass.decide last looked
	waiting  [2]*waiting      // by lane
	changed  [2]chan struct{} // by lane; holds one item when there may be work
	room     chan struct{}    // holds one item when some work was finished
	limit    int              // of weight

	mu          sync.Mutex // guards the fields below
	controllers map[string]*troubled
	weight      int
	held        map[uint64]struct{} // sequences in DECODED of the waiting messages
}

// troubled is a controller whose messages are set apart.
type troubled struct {
	queue    []jetstream.Msg    // oldest first
	weight   int                // of queue
	inHand   context.CancelFunc // cancels the attempt for the first messages of queue; nil: there is none
	overflow bool               // no attempt may start before there is room
	timeouts int                // consecutive timeouts; 0: its rows are not slow
	last     time.Time          // of the last refusal or timeout
	cause    error              // of the last refusal or timeout
}

// A lane writes messages that are set apart. The two lanes do not wait for each other.
type lane int

const (
	// quick is for refused messages: it writes messages of several controllers together,
	// in smaller parts where that is refused.
	quick lane = iota
	// patient is for slow messages: it writes one message after the other.
	patient
)

const (
	// apartPatience is how long one slow message may take. It is halved after each timeout,
	// down to leastPatience.
	apartPatience = time.Minute
	leastPatience = time.Second
	// refusalMemory and slowMemory are how long a controller stays apart after its last
	// refusal or timeout.
	refusalMemory = 10 * time.Second
	slowMemory    = 10 * time.Minute
	maxApart      = 4 << 20 // of weight
	// mostTogether is how many messages the quick lane writes in a turn.
	mostTogether = 50
	// fewest is the largest part whose timeout means that a controller is slow. A larger
	// part may only have had too many messages.
	fewest = 4
)

// weigh returns about how many bytes of memory a message takes.
func weigh(m jetstream.Msg) int { return size(m) + 512 }

func newApart(w *Writer) *apart {
	return &apart{
		w: w, waiting: [2]*waiting{newWaiting(w.alarms, "tables, for controllers apart"), newWaiting(w.alarms, "tables, for slow controllers")},
		changed: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}, room: make(chan struct{}, 1), limit: maxApart,
		controllers: map[string]*troubled{}, held: map[uint64]struct{}{},
	}
}

// count returns how many controllers are apart, and how many of their messages wait.
func (a *apart) count() (controllers, messages int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.controllers), len(a.held)
}

// take takes the messages of controllers that are apart, and returns the others. After an
// error, which is the cause, the returned messages include those that it could not take.
func (a *apart) take(ctx context.Context, messages []jetstream.Msg) (others []jetstream.Msg, err error) {
	if controllers, _ := a.count(); controllers == 0 {
		return messages, nil
	}
	others = messages[:0]
	var taken []jetstream.Msg
	a.mu.Lock()
	for _, m := range messages {
		if _, ok := a.controllers[macToken(m)]; ok {
			taken = append(taken, m)
		} else {
			others = append(others, m)
		}
	}
	a.mu.Unlock()
	waiting, err := a.add(ctx, taken, nil)
	return append(others, waiting...), err
}

// add sets messages and their controllers apart; cause is why, for new controllers. It makes
// room. If it cannot, it returns the messages that have to wait, and why.
func (a *apart) add(ctx context.Context, messages []jetstream.Msg, cause error) (waiting []jetstream.Msg, err error) {
	for i, m := range messages {
		for !a.put(m, cause) {
			if err := a.makeRoom(ctx); err != nil {
				return messages[i:], err
			}
		}
	}
	return nil, nil
}

// put adds a message. It returns false if there is no room.
func (a *apart) put(m jetstream.Msg, cause error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	meta, err := m.Metadata()
	if err != nil {
		return true // not a message of a stream
	}
	place := meta.Sequence.Stream
	if _, ok := a.held[place]; ok {
		return true // delivered again while waiting
	}
	if len(a.held) > 0 && a.weight+weigh(m) > a.limit {
		return false
	}
	c := a.controllers[macToken(m)]
	if c == nil {
		c = &troubled{}
		c.trouble(cause)
		a.controllers[macToken(m)] = c
	}
	a.held[place] = struct{}{}
	c.queue = append(c.queue, m)
	c.weight, a.weight = c.weight+weigh(m), a.weight+weigh(m)
	a.wake()
	return true
}

// trouble records a refusal or a timeout.
func (c *troubled) trouble(cause error) {
	c.last, c.cause = time.Now(), cause
	if outcomeOf(cause) == slow {
		c.timeouts++
	}
}

func (c *troubled) lane() lane {
	if c.timeouts > 0 {
		return patient
	}
	return quick
}

// wake wakes both lanes. The caller holds mu.
func (a *apart) wake() {
	a.w.metrics.apart.Set(float64(len(a.held)))
	signal(a.changed[quick])
	signal(a.changed[patient])
}

// signal puts an item into c, which holds one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// makeRoom makes dead letters of the older half of the messages of the controller with the
// most. It returns an error if the tables accept no rows: that is not the controller's fault.
func (a *apart) makeRoom(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var most *troubled
	for _, c := range a.controllers {
		if most == nil || c.weight > most.weight {
			most = c
		}
	}
	if most.inHand != nil {
		if most.timeouts > 0 {
			most.inHand()
		}
		before := a.weight
		most.overflow = true
		defer func() { most.overflow = false }()
		for most.inHand != nil {
			a.mu.Unlock()
			select {
			case <-a.room:
			case <-ctx.Done():
			}
			a.mu.Lock()
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if a.weight < before {
			return nil // some messages were settled
		}
	}
	surplus, cause := slices.Clone(most.queue[:(len(most.queue)+1)/2]), most.cause
	most.inHand = func() {} // no attempt starts meanwhile, so that the order is kept
	a.mu.Unlock()
	err := a.buryUntried(ctx, surplus, cause)
	a.mu.Lock()
	if err != nil {
		surplus = nil
	}
	a.end(most, surplus)
	return err
}

func (a *apart) buryUntried(ctx context.Context, messages []jetstream.Msg, cause error) error {
	letters := make([]deadletter.Letter, len(messages))
	for i, m := range messages {
		letters[i] = refusal(m, "not written: PostgreSQL did not write earlier messages of this controller ("+fault(cause)+"), and too many of its messages wait", sqlState(cause))
	}
	return a.w.buryRefused(ctx, letters, messages, cause)
}

// begin returns the messages that a lane tries next. breakOff cancels the attempt.
func (a *apart) begin(l lane, breakOff context.CancelFunc) (messages []jetstream.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	share := max(1, mostTogether/max(1, len(a.controllers)))
	if l == patient {
		share = 1
	}
	for mac, c := range a.controllers { // in random order, so that each has its turn
		if c.forgotten() {
			delete(a.controllers, mac)
			continue
		}
		if c.lane() != l || c.inHand != nil || c.overflow || len(c.queue) == 0 || len(messages) >= mostTogether || l == patient && len(messages) > 0 {
			continue
		}
		messages = append(messages, c.queue[:min(share, len(c.queue))]...)
		c.inHand = breakOff
	}
	return messages
}

func (c *troubled) forgotten() bool {
	since := time.Since(c.last)
	return len(c.queue) == 0 && c.inHand == nil && (since > slowMemory || c.timeouts == 0 && since > refusalMemory)
}

// end ends an attempt: it removes the settled messages from the controller's queue. The
// caller holds mu.
func (a *apart) end(c *troubled, settled []jetstream.Msg) {
	if c.inHand == nil {
		return
	}
	c.inHand = nil
	for _, m := range settled {
		meta, err := m.Metadata()
		if err != nil {
			continue
		}
		delete(a.held, meta.Sequence.Stream)
		c.weight, a.weight = c.weight-weigh(m), a.weight-weigh(m)
	}
	c.queue = slices.DeleteFunc(c.queue, func(m jetstream.Msg) bool {
		meta, err := m.Metadata()
		if err != nil {
			return true
		}
		_, held := a.held[meta.Sequence.Stream]
		return !held
	})
	a.wake()
	signal(a.room)
}
