package writer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// apart writes the messages of controllers whose rows PostgreSQL refuses, or does not
// finish in time, beside those of the others, which do not wait for them. Each
// controller's keep their order. What waits here is bounded by bytes: of more than can
// be tried, the oldest of the controller that has the most become dead letters untried.
type apart struct {
	w        *Writer
	accepted atomic.Bool      // rows were taken since the writer looked last
	waiting  [2]*waiting      // by lane
	changed  [2]chan struct{} // by lane; holds one item when there may be something to do
	room     chan struct{}    // holds one item when there is less to do
	limit    int              // of weight

	mu          sync.Mutex // guards the fields below
	controllers map[string]*troubled
	weight      int
	held        map[uint64]struct{} // the places in DECODED of what waits
}

// troubled is a controller that is set apart.
type troubled struct {
	queue    []jetstream.Msg    // oldest first
	weight   int                // of queue
	inHand   context.CancelFunc // breaks off what is being tried of the queue's beginning; nil: nothing is
	overflow bool               // nothing is to be tried before there is room
	timeouts int                // one after the other; 0: its rows are not slow
	last     time.Time          // of the last refusal or timeout
	cause    error              // of that
}

// A lane is one of the two ways through what is set apart, which do not wait for each
// other.
type lane int

const (
	// quick is for what is refused: some messages of several controllers at once, in
	// parts where that is refused.
	quick lane = iota
	// patient is for what takes long: one message after the other.
	patient
)

const (
	// apartPatience is how long one slow message may take. It is halved with each that
	// takes longer, down to leastPatience.
	apartPatience = time.Minute
	leastPatience = time.Second
	// refusalMemory and slowMemory are how long a controller stays apart after its last
	// refusal or timeout.
	refusalMemory = 10 * time.Second
	slowMemory    = 10 * time.Minute
	maxApart      = 4 << 20 // by weight
	// mostTogether is how many messages the quick lane tries in a turn.
	mostTogether = 50
	// fewest is how many messages of one controller have to be slow for it to be slow:
	// more of them may only be too many.
	fewest = 4
)

// weigh is about the bytes of memory that a message takes.
func weigh(m jetstream.Msg) int { return size(m) + 512 }

func newApart(w *Writer) *apart {
	return &apart{
		w: w, waiting: [2]*waiting{newWaiting(w.alarms, "tables, for controllers apart"), newWaiting(w.alarms, "tables, for slow controllers")},
		changed: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}, room: make(chan struct{}, 1), limit: maxApart,
		controllers: map[string]*troubled{}, held: map[uint64]struct{}{},
	}
}

// count returns how many controllers are apart, and how many messages of them wait.
func (a *apart) count() (controllers, messages int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.controllers), len(a.held)
}

// take takes the messages of controllers that are apart, and returns the others. With
// an error, which has the cause, those that it could not take have to wait, too.
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

// add sets messages apart, and their controllers; cause is why, where this is new. It
// makes room. Where it cannot, it returns the messages that have to wait, and why.
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

// put is false where there is no room.
func (a *apart) put(m jetstream.Msg, cause error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	meta, err := m.Metadata()
	if err != nil {
		return true // no message of a stream
	}
	place := meta.Sequence.Stream
	if _, ok := a.held[place]; ok {
		return true // delivered again while it waits
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

// trouble notes a refusal or a timeout.
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

// wake has the lanes look what there is to do. The caller holds mu.
func (a *apart) wake() {
	a.w.metrics.apart.Set(float64(len(a.held)))
	signal(a.changed[quick])
	signal(a.changed[patient])
}

// signal leaves one item in c.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// makeRoom makes dead letters of the older half of what waits of the controller that
// has the most. It does not where the tables take no rows, which is not its fault.
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
			return nil // some of it is settled
		}
	}
	surplus, cause := slices.Clone(most.queue[:(len(most.queue)+1)/2]), most.cause
	most.inHand = func() {} // its order is kept: nothing is tried meanwhile
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
		letters[i] = refusal(m, "not tried: PostgreSQL did not write earlier messages of this controller ("+fault(cause)+"), and more are coming than can be tried", sqlState(cause))
	}
	return a.w.buryRefused(ctx, letters, messages, cause)
}

// begin takes in hand what a lane is to try next, until breakOff is called.
func (a *apart) begin(l lane, breakOff context.CancelFunc) (messages []jetstream.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	share := max(1, mostTogether/max(1, len(a.controllers)))
	if l == patient {
		share = 1
	}
	for mac, c := range a.controllers { // in any order, so that each has its turn
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

// end lays a controller's messages back, but for those that are settled. The caller
// holds mu.
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

// run takes turns of a lane until ctx ends.
func (a *apart) run(ctx context.Context, l lane) {
	for ctx.Err() == nil {
		tried, err := a.turn(ctx, l)
		switch {
		case err != nil:
			a.w.metrics.retries.Inc()
			select {
			case <-time.After(a.waiting[l].begin(err)):
			case <-ctx.Done():
			}
		case !tried:
			select {
			case <-a.changed[l]:
			case <-ctx.Done():
			}
		}
	}
}

// turn tries what is next of a lane, if anything is. Its error is why that has to wait.
func (a *apart) turn(ctx context.Context, l lane) (tried bool, err error) {
	trying, cancel := context.WithCancel(ctx)
	defer cancel()
	messages := a.begin(l, cancel)
	switch {
	case len(messages) == 0:
		return false, nil
	case l == patient:
		err = a.tryPatiently(trying, messages[0])
	default:
		err = a.tryTogether(trying, messages)
	}
	if trying.Err() != nil {
		return true, ctx.Err() // nil where it was broken off to make room
	}
	if err == nil {
		a.waiting[l].end()
	}
	return true, err
}

// try is one turn of the quick lane.
type try struct {
	w       *Writer
	settled []jetstream.Msg // written or buried
	refused []refusedMessage
	slow    map[string]error // by controller
}

// tryTogether is a turn of the quick lane.
func (a *apart) tryTogether(ctx context.Context, messages []jetstream.Msg) error {
	t := try{w: a.w, slow: map[string]error{}}
	sorted := byController(messages)
	err := t.write(ctx, sorted)
	if err == nil {
		err = t.bury(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for left := sorted; len(left) > 0; left = left[len(ofFirst(left)):] {
		mac := macToken(left[0])
		c := a.controllers[mac]
		if cause := t.slow[mac]; cause != nil {
			c.trouble(cause)
		}
		a.end(c, slices.DeleteFunc(slices.Clone(t.settled), func(m jetstream.Msg) bool { return macToken(m) != mac }))
	}
	for _, r := range t.refused {
		a.controllers[macToken(r.m)].trouble(r.cause)
	}
	return err
}

// write writes messages, which are sorted by controller, and finds those at fault.
func (t *try) write(ctx context.Context, sorted []jetstream.Msg) error {
	w := t.w
	settled := func(part []jetstream.Msg) {
		w.accept(ctx, part)
		w.apart.accepted.Store(true)
		t.settled = append(t.settled, part...)
	}
	_, err := w.inParts(ctx, sorted, len(sorted), settled, func(left, part []jetstream.Msg, cause error) ([]jetstream.Msg, error) {
		switch {
		case outcomeOf(cause) == slow && ofOne(part) && len(part) <= fewest:
			t.slow[macToken(part[0])] = cause
			return ofFirst(left), nil
		case len(part) == 1:
			t.refused = append(t.refused, refusedMessage{part[0], cause})
			return part, nil
		}
		return nil, nil
	})
	return err
}

// bury makes dead letters of what is refused, once the tables take other rows.
func (t *try) bury(ctx context.Context) error {
	w := t.w
	if len(t.refused) == 0 {
		return nil
	}
	if refusesAll, ok := errors.AsType[refusesAllError](w.waiting.now()); ok {
		return refusesAll // it may not be this controller's fault
	}
	messages := make([]jetstream.Msg, len(t.refused))
	letters := make([]deadletter.Letter, len(t.refused))
	for i, r := range t.refused {
		messages[i] = r.m
		letters[i] = refusal(r.m, "PostgreSQL refuses the message's rows: "+fault(r.cause), sqlState(r.cause))
	}
	if err := w.buryRefused(ctx, letters, messages, t.refused[0].cause); err != nil {
		return err
	}
	t.settled = append(t.settled, messages...)
	return nil
}

// tryPatiently is a turn of the patient lane.
func (a *apart) tryPatiently(ctx context.Context, m jetstream.Msg) error {
	w, one := a.w, []jetstream.Msg{m}
	a.mu.Lock()
	c := a.controllers[macToken(m)]
	patience := max(leastPatience, w.apartPatience>>min(c.timeouts-1, 10))
	a.mu.Unlock()
	started := time.Now()
	result, err := a.settle(ctx, m, patience)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil:
		one = nil
	case result != nil:
		c.trouble(result)
	case time.Since(started) < partPatience:
		c.timeouts = 0
	default:
		c.timeouts, c.last = 1, time.Now()
	}
	a.end(c, one)
	return err
}

// settle has a message written, or made a dead letter for the cause that it returns.
func (a *apart) settle(ctx context.Context, m jetstream.Msg, patience time.Duration) (cause, err error) {
	w, one := a.w, []jetstream.Msg{m}
	j, err := parse(one)
	if err != nil {
		return nil, err
	}
	cause = w.attempt(ctx, j, patience)
	result := outcomeOf(cause)
	switch {
	case result == written:
		w.accept(ctx, one)
		a.accepted.Store(true)
		return nil, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case result == unable:
		return nil, cause
	case result == slow:
		letter := refusal(m, fmt.Sprintf("PostgreSQL did not finish writing the message's rows in %s: look for a lock on them or a slow trigger", patience), queryCanceled)
		return cause, w.buryRefused(ctx, []deadletter.Letter{letter}, one, cause)
	}
	t := try{w: w, refused: []refusedMessage{{m, cause}}}
	return cause, t.bury(ctx)
}
