package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// Error codes of the server: JSStreamHeaderExceedsMaximumErr, and
// JSAtomicPublishIncompleteBatchErr, which is all that it says of a batch whose
// message it did not take.
const (
	errorCodeHeaderTooLarge jetstream.ErrorCode = 10097
	errorCodeIncomplete     jetstream.ErrorCode = 10176
)

// ErrTooLarge is the error of an Append with a message that the server or the
// stream never accepts, because of its size.
var ErrTooLarge = errors.New("a message is larger than the stream or the server accepts")

// OvertakenError is the error of an Append that stored nothing more because
// another writer had stored messages first: those from First to Last. The next Append
// stores after them.
type OvertakenError struct {
	Stream      string
	First, Last uint64
}

func (e *OvertakenError) Error() string {
	return fmt.Sprintf("another writer stored %d to %d on stream %s", e.First, e.Last, e.Stream)
}

// Appender stores messages on a stream of which it is the only regular writer. Each
// attempt states the sequence that it follows, and the server refuses it after any
// other: so what an attempt of unknown outcome has stored is found at that place, and
// the rest is stored after it, once. It does not need ids of messages. One goroutine
// appends.
type Appender struct {
	client      *Client
	stream      string
	last        uint64 // sequence that the next message follows
	incarnation uint64 // of the stream; 0: not known

	mu      sync.Mutex // guards the fields below
	since   time.Time  // when storing began to fail; zero while it succeeds
	problem error
}

// NewAppender returns an Appender whose first message follows the sequence last.
func (c *Client) NewAppender(streamName string, last uint64) *Appender {
	return &Appender{client: c, stream: streamName, last: last}
}

// OpenAppender returns an Appender at the end of the stream. It waits for the server for
// as long as ctx lasts. If RAW then loses its end to damaged files, it fills RAW up to
// there before it stores more, so that no sequence is used twice.
func (c *Client) OpenAppender(ctx context.Context, streamName string) (a *Appender, err error) {
	err = c.untilAnswered(ctx, "the end of "+streamName, func(ctx context.Context) error {
		info, err := c.Info(ctx, streamName)
		if err == nil {
			a = c.NewAppender(streamName, info.State.LastSeq)
			a.incarnation = Incarnation(info)
		}
		return err
	})
	return a, err
}

// Last is the sequence that the next message follows. It must not be called during an Append.
func (a *Appender) Last() uint64 { return a.last }

// Append stores the messages in their order, a few one by one and more in atomic batches, and
// returns when they are on disk. It retries for as long as ctx lasts. It returns the sequences of
// what it stored: with an error those of the first messages only. The error is an
// *OvertakenError, ErrTooLarge or what ctx ends with. The messages must have a
// Header, which Append changes.
func (a *Appender) Append(ctx context.Context, messages []*nats.Msg) (sequences []uint64, err error) {
	sequences = make([]uint64, 0, len(messages))
	for len(messages) > 0 {
		n, err := a.appendBatch(ctx, messages[:batchLength(messages)])
		if err != nil {
			return sequences, fmt.Errorf("storing on stream %s: %w", a.stream, err)
		}
		for i := range n {
			sequences = append(sequences, a.last-uint64(n-1-i)) //nolint:gosec // not negative
		}
		messages = messages[n:]
	}
	return sequences, nil
}

// Failing returns since when the stream has refused everything and why, or a zero time.
func (a *Appender) Failing() (since time.Time, problem error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.since, a.problem
}

func (a *Appender) note(problem error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.problem = problem; problem == nil {
		a.since = time.Time{}
	} else if a.since.IsZero() {
		a.since = time.Now()
	}
}

// appendBatch returns how many of the messages it has stored: the first ones, and at least one.
func (a *Appender) appendBatch(ctx context.Context, messages []*nats.Msg) (stored int, err error) {
	first := messages[0]
	first.Header[jetstream.ExpectedLastSeqHeader] = []string{strconv.FormatUint(a.last, 10)}
	defer delete(first.Header, jetstream.ExpectedLastSeqHeader) // its place may change
	wait := retryWait()
	for {
		err := a.attempt(ctx, messages)
		if err == nil {
			a.take(len(messages))
			return len(messages), nil
		}
		if ctx.Err() != nil {
			return 0, errors.Join(ctx.Err(), err)
		}
		if a.tooLarge(ctx, messages, err) {
			return 0, fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		if !refused(err) {
			stored, settleErr := a.settle(ctx, messages, err)
			if stored > 0 || settleErr != nil {
				return stored, settleErr
			}
		}
		a.note(err)
		a.client.waitToRetry(ctx, wait, a.stream, len(messages), err)
	}
}

// take moves the place of the next message behind n that are stored.
func (a *Appender) take(n int) {
	a.last += uint64(n) //nolint:gosec // not negative
	a.note(nil)
}

// attempt stores all messages or none, as long as no limit of the stream changes and the
// disk has room: see stored. A single one needs no batch.
func (a *Appender) attempt(ctx context.Context, messages []*nats.Msg) error {
	store := a.client.atomic
	if len(messages) == 1 {
		store = a.client.singly
	}
	return a.client.gated(ctx, func() error {
		_, err := store(ctx, messages)
		return err
	})
}

// settle finds out how many messages an attempt has stored, by what the stream holds where
// they belong: they are not anywhere else. The server reports all that it has acknowledged;
// what has not arrived yet will find its place taken.
func (a *Appender) settle(ctx context.Context, messages []*nats.Msg, problem error) (n int, err error) {
	a.note(problem)
	var last, incarnation uint64
	err = a.client.untilAnswered(ctx, "the end of "+a.stream, func(ctx context.Context) error {
		info, err := a.client.Info(ctx, a.stream) // before the messages: an attempt may arrive in between
		if err != nil {
			return err
		}
		last, incarnation = info.State.LastSeq, Incarnation(info)
		n, err = a.stored(ctx, messages)
		if err == nil && n == 0 && last > a.last && info.Cluster != nil && info.State.Msgs > 0 {
			// Somebody stored something: us, or another. It must be there to read, but a
			// server of a cluster that is not the leader any more does not know it yet.
			_, err = a.client.Message(ctx, a.stream, Query{Next: ">", Sequence: a.last + 1})
		}
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case n > 0:
		a.take(n)
		return n, nil
	case last < a.last && a.stream == Raw && incarnation == a.incarnation:
		return 0, a.client.fillRaw(ctx, last, a.last)
	case last != a.last: // less than that: the stream was recreated
		overtaken := &OvertakenError{Stream: a.stream, First: a.last + 1, Last: last}
		a.last, a.incarnation = last, incarnation
		return 0, overtaken
	}
	return 0, nil
}

// stored returns how many of the messages, the first ones, the stream has at their place. It
// may be a part of a batch: nats-server 2.15.2 checks a batch as a whole, but then stores
// message after message, and stops at the first that a new limit or a full disk refuses. The
// first messages may have been trimmed already.
func (a *Appender) stored(ctx context.Context, messages []*nats.Msg) (n int, err error) {
	end := Query{Sequence: a.last + uint64(len(messages))}
	if m, err := a.client.Message(ctx, a.stream, end); err == nil && same(m, messages[len(messages)-1]) {
		return len(messages), nil
	} else if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, err
	}
	for n < len(messages) {
		m, err := a.client.Message(ctx, a.stream, Query{Next: ">", Sequence: a.last + uint64(n) + 1})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return 0, err
		}
		at := m.Sequence - a.last
		if at > uint64(len(messages)) || !same(m, messages[at-1]) {
			break
		}
		n = int(at) //nolint:gosec // at most len(messages)
	}
	return n, nil
}

// same reports whether a stored message is m, by its subject, content and headers.
func same(stored *jetstream.RawStreamMsg, m *nats.Msg) bool {
	if stored.Subject != m.Subject || string(stored.Data) != string(m.Data) {
		return false
	}
	for key, values := range m.Header {
		switch key {
		case jetstreamext.BatchIDHeader, jetstreamext.BatchSeqHeader, jetstreamext.BatchCommitHeader, jetstream.ExpectedLastSeqHeader:
		default:
			if !slices.Equal(stored.Header[key], values) {
				return false
			}
		}
	}
	return true
}

// refused reports whether the server said that it has not stored the attempt, and
// not because of the place.
func refused(err error) bool {
	var apiErr *jetstream.APIError
	return errors.As(err, &apiErr) &&
		apiErr.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence && apiErr.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// tooLarge reports whether an attempt was refused because of a message's size.
func (a *Appender) tooLarge(ctx context.Context, messages []*nats.Msg, problem error) bool {
	var apiErr *jetstream.APIError
	if !errors.As(problem, &apiErr) {
		return errors.Is(problem, nats.ErrMaxPayload)
	}
	switch apiErr.ErrorCode {
	case jetstream.JSErrCodeStreamMessageExceedsMaximum, errorCodeHeaderTooLarge:
		return true
	case errorCodeIncomplete:
		limit, err := a.client.MaxMessage(ctx, a.stream)
		return err == nil && slices.ContainsFunc(messages, func(m *nats.Msg) bool { return int64(m.Size()-len(m.Subject)) > limit })
	}
	return false
}
