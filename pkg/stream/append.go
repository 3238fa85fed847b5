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
// other: so an attempt whose outcome is unknown is either found at that place or
// repeated for the same place, and one of the two is stored at most. It does not
// need ids of messages. One goroutine appends.
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

// Append stores the messages in their order, in atomic batches, and returns when
// they are on disk. It retries for as long as ctx lasts. It returns the sequences of
// what it stored: with an error those of the first messages only. The error is an
// *OvertakenError, ErrTooLarge or what ctx ends with. The messages must have a
// Header, which Append changes.
func (a *Appender) Append(ctx context.Context, messages []*nats.Msg) (sequences []uint64, err error) {
	sequences = make([]uint64, 0, len(messages))
	for len(messages) > 0 {
		n := batchLength(messages)
		if err := a.appendBatch(ctx, messages[:n]); err != nil {
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

func (a *Appender) appendBatch(ctx context.Context, messages []*nats.Msg) error {
	first := messages[0]
	first.Header[jetstream.ExpectedLastSeqHeader] = []string{strconv.FormatUint(a.last, 10)}
	defer delete(first.Header, jetstream.ExpectedLastSeqHeader) // its place may change
	wait := retryWait()
	for {
		err := a.attempt(ctx, messages)
		if err == nil {
			a.last += uint64(len(messages))
			a.note(nil)
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		if a.tooLarge(ctx, messages, err) {
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		if !refused(err) {
			stored, settleErr := a.settle(ctx, messages, err)
			if stored || settleErr != nil {
				return settleErr
			}
		}
		a.note(err)
		a.client.waitToRetry(ctx, wait, a.stream, len(messages), err)
	}
}

// attempt stores all messages or none. A single one needs no batch.
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

// settle finds out what became of an attempt, by what the stream holds where it
// belongs: it is not anywhere else. The server reports all that it has
// acknowledged; what has not arrived yet will find its place taken.
func (a *Appender) settle(ctx context.Context, messages []*nats.Msg, problem error) (stored bool, err error) {
	a.note(problem)
	var next *jetstream.RawStreamMsg
	var last, incarnation uint64
	err = a.client.untilAnswered(ctx, "the end of "+a.stream, func(ctx context.Context) (err error) {
		info, err := a.client.Info(ctx, a.stream) // before the other: an attempt may arrive in between
		if err != nil {
			return err
		}
		last, incarnation = info.State.LastSeq, Incarnation(info)
		next, err = a.client.Message(ctx, a.stream, Query{Next: ">", Sequence: a.last + 1})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return false, err
	case next != nil && next.Sequence-a.last <= uint64(len(messages)) && same(next, messages[next.Sequence-a.last-1]):
		a.last += uint64(len(messages))
		a.note(nil)
		return true, nil
	case last < a.last && a.stream == Raw && incarnation == a.incarnation:
		return false, a.client.fillRaw(ctx, last, a.last)
	case last != a.last: // less than that: the stream was recreated
		overtaken := &OvertakenError{Stream: a.stream, First: a.last + 1, Last: last}
		a.last, a.incarnation = last, incarnation
		return false, overtaken
	}
	return false, nil
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
