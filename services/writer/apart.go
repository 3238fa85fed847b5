package writer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
)

// apart writes the messages of controllers whose rows PostgreSQL does not finish in
// time, one by one and with patience, while the others' go on: behind a lock that
// somebody holds on a row, or a trigger that takes long. Each controller's keep
// their order. It is bounded by count and bytes.
type apart struct {
	w    *Writer
	wake chan struct{} // holds one item when there is something to do
	room chan struct{} // holds one item when there is less to do

	mu          sync.Mutex // guards the fields below
	controllers map[string]*slowController
	queue       []jetstream.Msg
	bytes       int
	held        map[uint64]struct{} // the queue's places in DECODED
}

// slowController is one that is set apart.
type slowController struct {
	waiting  int       // messages in the queue
	timeouts int       // of its latest messages, one after the other
	last     time.Time // of the last timeout
}

const (
	// apartPatience is how long one message may take. It is halved with each that
	// takes longer, down to leastPatience.
	apartPatience = time.Minute
	leastPatience = time.Second
	// apartMemory is how long a controller stays apart after its last timeout.
	apartMemory = 10 * time.Minute
	// apartTried is how many timeouts one after the other make a controller one
	// whose messages are no longer tried while they come faster than they time out.
	apartTried = 3
	maxApart   = 1000 // messages in the queue, and controllers
	// mostTogether is how many messages are first tried at once.
	mostTogether = 100
)

func newApart(w *Writer) *apart {
	return &apart{
		w: w, wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		controllers: map[string]*slowController{}, held: map[uint64]struct{}{},
	}
}

// count returns how many controllers are apart.
func (a *apart) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.controllers)
}

// take takes the messages of controllers that are apart, and returns the others.
func (a *apart) take(ctx context.Context, messages []jetstream.Msg) (others []jetstream.Msg, err error) {
	if a.count() == 0 {
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
	if err := a.add(ctx, taken); err != nil {
		return append(others, taken...), err
	}
	return others, nil
}

// add sets messages apart, and their controllers. It waits for room, and fails only
// with ctx.
func (a *apart) add(ctx context.Context, messages []jetstream.Msg) error {
	for _, m := range messages {
		for !a.put(m) {
			select {
			case <-a.room:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// put is false where there is no room.
func (a *apart) put(m jetstream.Msg) bool {
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
	if len(a.queue) > 0 && (len(a.queue) >= maxApart || a.bytes+len(m.Data()) > maxBatchBytes) {
		return false
	}
	a.held[place] = struct{}{}
	a.queue, a.bytes = append(a.queue, m), a.bytes+len(m.Data())
	c := a.controllers[macToken(m)]
	if c == nil {
		c = &slowController{}
		a.controllers[macToken(m)] = c
	}
	c.waiting++
	a.w.metrics.apart.Set(float64(len(a.queue)))
	signal(a.wake)
	return true
}

// signal leaves one item in c.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes what is apart until ctx ends.
func (a *apart) run(ctx context.Context) {
	for ctx.Err() == nil {
		messages, timeouts, full := a.next()
		if len(messages) == 0 {
			select {
			case <-a.wake:
			case <-time.After(apartMemory):
			case <-ctx.Done():
			}
			continue
		}
		if len(messages) > 1 && a.settleTogether(ctx, messages) {
			for _, m := range messages {
				a.done(m, false)
			}
			continue
		}
		timedOut, err := a.settle(ctx, messages[0], timeouts, full)
		if err != nil {
			return // it comes again
		}
		a.done(messages[0], timedOut)
	}
}

// next returns what is to be written next: one message, or several of controllers of
// which none has timed out here.
func (a *apart) next() (messages []jetstream.Msg, timeouts int, full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget()
	for _, m := range a.queue {
		c := a.controllers[macToken(m)]
		if len(messages) == 0 {
			timeouts = c.timeouts
		}
		if len(messages) == mostTogether || len(messages) > 0 && (timeouts > 0 || c.timeouts > 0) {
			break
		}
		messages = append(messages, m)
	}
	return messages, timeouts, 2*len(a.queue) > maxApart || 2*a.bytes > maxBatchBytes
}

// settleTogether tries to write messages at once, as where the database was slow for
// all for a moment.
func (a *apart) settleTogether(ctx context.Context, messages []jetstream.Msg) bool {
	j, err := parse(messages)
	if err != nil || a.w.attempt(ctx, j, a.w.patience(j, firstPatience)) != nil {
		return false
	}
	a.w.accept(ctx, messages)
	return true
}

// settle has a message written or made a dead letter. It fails only with ctx.
func (a *apart) settle(ctx context.Context, m jetstream.Msg, timeouts int, full bool) (timedOut bool, err error) {
	w, one := a.w, []jetstream.Msg{m}
	j, err := parse(one)
	if err != nil {
		return false, err
	}
	if full && timeouts >= apartTried {
		detail := fmt.Sprintf("not tried: PostgreSQL did not finish the last %d messages of this controller in time, and more are coming than can be tried", timeouts)
		return true, w.bury(ctx, []deadletter.Letter{refusal(m, detail, queryCanceled)}, one)
	}
	patience := max(leastPatience, w.apartPatience>>min(timeouts, 10))
	refusals := 0
	for {
		err := w.attempt(ctx, j, patience)
		result := outcomeOf(err)
		if result == written {
			w.accept(ctx, one)
			return false, nil
		}
		if result != unable {
			if failed := w.probe(ctx, j, err); failed != nil {
				err, result = failed, unable
			}
		}
		var letter deadletter.Letter
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case result == slow:
			letter = refusal(m, fmt.Sprintf("PostgreSQL did not finish writing the message's rows in %s: look for a lock on them or a slow trigger", patience), queryCanceled)
		case result == refused && refusals > 0:
			letter = refusal(m, "PostgreSQL refuses the message's rows: "+fault(err), sqlState(err))
		default:
			if result == refused {
				refusals++
			}
			w.metrics.retries.Inc()
			select {
			case <-time.After(undecidedWait):
			case <-ctx.Done():
			}
			continue
		}
		return result == slow, w.bury(ctx, []deadletter.Letter{letter}, one)
	}
}

// done takes the first of the queue out of it.
func (a *apart) done(m jetstream.Msg, timedOut bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if meta, err := m.Metadata(); err == nil {
		delete(a.held, meta.Sequence.Stream)
	}
	a.queue[0] = nil
	a.queue, a.bytes = a.queue[1:], a.bytes-len(m.Data())
	c := a.controllers[macToken(m)]
	c.waiting--
	if timedOut {
		c.timeouts++
		c.last = time.Now()
	} else {
		c.timeouts = 0
	}
	a.w.metrics.apart.Set(float64(len(a.queue)))
	signal(a.room)
}

// forget lets controllers go back of which nothing waits: those whose last message
// was written, those whose last timeout is long ago, and some if they are many.
func (a *apart) forget() {
	for mac, c := range a.controllers {
		if c.waiting == 0 && (c.timeouts == 0 || time.Since(c.last) > apartMemory || len(a.controllers) > maxApart) {
			delete(a.controllers, mac)
		}
	}
}
