package writer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// maxBatchBytes is the size of the largest batch, by its messages. In memory it takes several
// times that: as received, parsed, and as sent to PostgreSQL.
const maxBatchBytes = 4 << 20

// refusedMessage is a message whose rows PostgreSQL refuses while the tables accept others.
type refusedMessage struct {
	m     jetstream.Msg
	cause error
}

// pass is one attempt to write a list of messages. None is lost: each one is settled, set
// apart, or waits.
type pass struct {
	w        *Writer
	accepted bool // rows were written since the first refusal
	refused  []refusedMessage
}

// write tries to write the messages once. It returns those that have to wait for the
// database, and why. The others are set apart, or they are in the tables or dead letters,
// and acknowledged.
func (w *Writer) write(ctx context.Context, messages []jetstream.Msg) (waiting []jetstream.Msg, cause error) {
	messages, err := w.settleUnreadable(ctx, messages)
	if err != nil {
		return messages, err
	}
	if messages, err = w.apart.take(ctx, messages); err != nil {
		return messages, err
	}
	p := pass{w: w}
	for len(messages) > 0 {
		n := min(w.limit, len(messages))
		rest, err := p.write(ctx, messages[:n])
		if err != nil {
			return slices.Concat(p.unsettled(), rest, messages[n:]), err
		}
		messages = messages[n:]
	}
	return p.decide(ctx)
}

// settleUnreadable makes dead letters of messages that are not valid DECODED messages, and
// returns the others.
func (w *Writer) settleUnreadable(ctx context.Context, messages []jetstream.Msg) ([]jetstream.Msg, error) {
	var letters []deadletter.Letter
	var unreadable []jetstream.Msg
	var d event.Decoded
	good := messages[:0]
	for _, m := range messages {
		if err := event.ParseDecoded(m.Subject(), m.Data(), &d); err != nil {
			letters, unreadable = append(letters, notDecoded(m, err)), append(unreadable, m)
			continue
		}
		good = append(good, m)
	}
	if err := w.bury(ctx, letters, unreadable); err != nil {
		return append(good, unreadable...), err
	}
	return good, nil
}

// write writes one batch, in parts if it is refused or takes too long. It returns the
// messages that have to wait, and why.
func (p *pass) write(ctx context.Context, messages []jetstream.Msg) (waiting []jetstream.Msg, cause error) {
	w := p.w
	j, err := parse(messages)
	if err != nil {
		return messages, err
	}
	started, timeout := time.Now(), w.patience(j, firstPatience)
	err = w.attempt(ctx, j, timeout)
	switch outcomeOf(err) {
	case written:
		p.accept(ctx, messages)
		if len(messages) == w.limit && time.Since(started) < timeout/4 {
			w.limit = min(2*w.limit, w.cfg.Batch)
		}
		return nil, nil
	case unable:
		w.limit = max(1, len(messages)/2) // a bad connection may manage a smaller batch
		return messages, err
	case slow, refused:
	}
	if err := w.probe(ctx, j, err); err != nil {
		return messages, err
	}
	if outcomeOf(err) == slow && w.slowCommits(ctx, timeout) {
		return messages, err
	}
	w.metrics.splits.Inc()
	if outcomeOf(err) == slow {
		w.limit = max(1, len(messages)/2) // the batch may only have been too large
	}
	return p.writeParts(ctx, messages, err)
}

// writeParts writes a batch that was refused or slow for cause in parts, and finds the
// controllers whose rows are refused or slow. apart finds out which of their messages are,
// where no other messages wait for that.
func (p *pass) writeParts(ctx context.Context, messages []jetstream.Msg, cause error) (waiting []jetstream.Msg, err error) {
	sorted := byController(messages)
	settled := func(part []jetstream.Msg) { p.accept(ctx, part) }
	return p.w.inParts(ctx, sorted, smaller(len(sorted), outcomeOf(cause)), settled, func(left, part []jetstream.Msg, cause error) ([]jetstream.Msg, error) {
		if !ofOne(part) {
			return nil, nil
		}
		all := ofFirst(left)
		if outcomeOf(cause) == slow {
			waiting, err := p.w.apart.add(ctx, all, cause)
			return all[:len(all)-len(waiting)], err
		}
		for _, m := range all {
			p.refused = append(p.refused, refusedMessage{m, cause})
		}
		return all, nil
	})
}

// inParts writes messages, which are sorted by controller, in parts. The parts get smaller
// after each that is refused or slow, and larger after each that is written. It calls settled
// for each written part, and blame for each other one. blame returns the messages at the
// beginning of left that are at fault, or none to have the part written in smaller parts; it
// must return at least the message of a part of one. inParts returns the messages that have
// to wait, and why.
func (w *Writer) inParts(ctx context.Context, left []jetstream.Msg, size int, settled func(part []jetstream.Msg),
	blame func(left, part []jetstream.Msg, cause error) (taken []jetstream.Msg, err error),
) ([]jetstream.Msg, error) {
	for len(left) > 0 {
		part := left[:min(size, len(left))]
		j, err := parse(part)
		if err != nil {
			return left, err
		}
		cause := w.attempt(ctx, j, w.patience(j, partPatience))
		switch outcomeOf(cause) {
		case unable:
			return left, cause
		case written:
			settled(part)
			left = left[len(part):]
			size *= 2
		case slow, refused:
			taken, err := blame(left, part, cause)
			left = left[len(taken):]
			if err != nil {
				return left, err
			}
			if len(taken) == 0 {
				size = smaller(len(part), outcomeOf(cause))
			}
		}
	}
	return nil, nil
}

// ofOne reports whether sorted messages are of one controller.
func ofOne(sorted []jetstream.Msg) bool {
	return macToken(sorted[0]) == macToken(sorted[len(sorted)-1])
}

// byController sorts messages by controller, and keeps the order of each controller's.
func byController(messages []jetstream.Msg) []jetstream.Msg {
	sorted := slices.Clone(messages)
	slices.SortStableFunc(sorted, func(a, b jetstream.Msg) int { return strings.Compare(macToken(a), macToken(b)) })
	return sorted
}

// ofFirst returns the messages of the first controller.
func ofFirst(sorted []jetstream.Msg) []jetstream.Msg {
	mac := macToken(sorted[0])
	n := slices.IndexFunc(sorted, func(m jetstream.Msg) bool { return macToken(m) != mac })
	if n < 0 {
		n = len(sorted)
	}
	return sorted[:n]
}

// smaller returns the size of the next part after one of n messages was not written. Slow
// messages are searched in larger steps, since each attempt takes until its timeout.
func smaller(n int, result outcome) int {
	if result == slow {
		return max(1, n/16)
	}
	return max(1, n/2)
}

// accept settles messages whose rows are in the tables.
func (p *pass) accept(ctx context.Context, messages []jetstream.Msg) {
	p.w.accept(ctx, messages)
	p.w.together.forget()
	p.accepted = true
}

func (p *pass) unsettled() []jetstream.Msg {
	all := make([]jetstream.Msg, len(p.refused))
	for i := range p.refused {
		all[i] = p.refused[i].m
	}
	return all
}

// decide sets the refused messages apart, or has them wait: if the rows of several controllers
// are refused for one reason, and no rows are accepted, it is the table's fault and not theirs
// (design 5.6).
func (p *pass) decide(ctx context.Context) (waiting []jetstream.Msg, cause error) {
	w := p.w
	if len(p.refused) == 0 {
		return nil, nil
	}
	if w.apart.accepted.Swap(false) {
		w.together.forget()
		p.accepted = true
	}
	if !p.accepted && w.together.add(p.refused) {
		return p.unsettled(), refusesAllError{p.refused[0].cause}
	}
	if waiting, err := w.apart.add(ctx, p.unsettled(), p.refused[0].cause); err != nil {
		return waiting, err
	}
	return nil, nil
}

// buryRefused is bury, if the tables accept other rows than those that failed with cause. If
// they do not, it is not the messages' fault, and buryRefused returns an error.
func (w *Writer) buryRefused(ctx context.Context, letters []deadletter.Letter, messages []jetstream.Msg, cause error) error {
	j, err := parse(messages)
	if err != nil {
		return err
	}
	if err := w.probe(ctx, j, cause); err != nil {
		return err
	}
	return w.bury(ctx, letters, messages)
}

// bury stores the dead letters of messages, and settles the messages. It fails only if ctx
// ends.
func (w *Writer) bury(ctx context.Context, letters []deadletter.Letter, messages []jetstream.Msg) error {
	if len(letters) == 0 {
		return nil
	}
	if err := w.letters.Record(ctx, letters); err != nil {
		return err
	}
	for i := range letters {
		w.metrics.deadLetters.WithLabelValues(letters[i].Reason).Inc()
	}
	w.settle(ctx, messages)
	return nil
}

// accept settles messages whose rows are in the tables.
func (w *Writer) accept(ctx context.Context, messages []jetstream.Msg) {
	w.taken.note(messages)
	w.settle(ctx, messages)
}

// settle acknowledges messages.
func (w *Writer) settle(ctx context.Context, messages []jetstream.Msg) {
	if err := w.streams.Acknowledge(ctx, messages...); err != nil {
		w.log.Debug("acknowledging written messages; they come again as duplicates", "error", err)
	}
	w.metrics.received.Add(float64(len(messages)))
	w.settled.Add(uint64(len(messages)))
}

// macToken returns the controller's MAC in a message's subject, f2.decoded.<mac>.….
func macToken(m jetstream.Msg) string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(m.Subject(), "f2."), ".")
	mac, _, _ := strings.Cut(rest, ".")
	return mac
}

// together tells a fault of a table from a fault of a controller: a table that refuses the
// rows of several controllers for one reason, and accepts none, is at fault itself.
type together struct {
	state       string
	controllers map[string]struct{}
}

// dataExceptions is the class of SQLSTATEs about values that no table accepts.
const dataExceptions = "22"

// add records messages that were refused while no rows were accepted. It reports whether
// several controllers were refused for the same reason.
func (t *together) add(messages []refusedMessage) bool {
	state := sqlState(messages[0].cause)
	for _, r := range messages {
		if other := sqlState(r.cause); other != state || strings.HasPrefix(other, dataExceptions) {
			t.forget()
			return false
		}
	}
	if t.state != state || t.controllers == nil {
		t.state, t.controllers = state, map[string]struct{}{}
	}
	for _, r := range messages {
		t.controllers[macToken(r.m)] = struct{}{}
	}
	return len(t.controllers) > 1
}

func (t *together) forget() { t.state, t.controllers = "", nil }
