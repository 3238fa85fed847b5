package writer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// run runs a lane until ctx ends.
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

// turn tries the next messages of a lane, if there are any. Its error is why they have to
// wait.
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
		return true, ctx.Err() // nil if makeRoom cancelled the attempt
	}
	if err == nil {
		a.waiting[l].end()
	}
	return true, err
}

// try is the state of a turn of the quick lane.
type try struct {
	w       *Writer
	settled []jetstream.Msg // written, or dead letters
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

// write writes messages, which are sorted by controller, and finds the refused and slow
// ones.
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

// bury makes dead letters of the refused messages, if the tables accept other rows.
func (t *try) bury(ctx context.Context) error {
	w := t.w
	if len(t.refused) == 0 {
		return nil
	}
	if refusesAll, ok := errors.AsType[refusesAllError](w.waiting.now()); ok {
		return refusesAll // it may not be these controllers' fault
	}
	messages := make([]jetstream.Msg, len(t.refused))
	letters := make([]deadletter.Letter, len(t.refused))
	for i, r := range t.refused {
		messages[i] = r.m
		letters[i] = refusal(r.m, "PostgreSQL refused the message's rows: "+fault(r.cause), sqlState(r.cause))
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

// settle writes a message, or makes a dead letter of it for the cause that it returns.
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
		letter := refusal(m, fmt.Sprintf("PostgreSQL did not write the message's rows within %s: look for a lock on them or a slow trigger", patience), queryCanceled)
		return cause, w.buryRefused(ctx, []deadletter.Letter{letter}, one, cause)
	}
	t := try{w: w, refused: []refusedMessage{{m, cause}}}
	return cause, t.bury(ctx)
}
