// Package command sends commands to controllers and waits for their outcomes. The bridge
// carries a command out (services/bridge/command) and states the outcome on RESULT; this
// package checks that the person may send it, stores it on COMMANDS and waits.
//
// The sender's id makes a command idempotent: a command whose id is on RESULT already is not
// sent again, but has the outcome of the earlier one. RESULT keeps 30 days, and the last
// 1,000 messages of each component.
package command

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// maxID is how long an id may be, in bytes.
	maxID = 128
	// sendTimeout is how long Do tries to store a command: a person who waits longer means
	// another moment.
	sendTimeout = 5 * time.Second
	// lookInterval is how often Do looks on RESULT: what it is told of at once may be lost
	// with a connection.
	lookInterval = time.Second
	// clockSkew is the assumed difference between this clock and the NATS server's.
	clockSkew = time.Minute
	// window is how long COMMANDS knows an id.
	window = time.Hour
)

// Order is one command to be sent.
type Order struct {
	Place  topic.Topic // the component; its Root does not matter
	Body   []byte      // empty: the component's state is requested
	ID     string      // makes it idempotent; "": it has a new one
	Person string      // who sends it
	// Controller is the controller's name in the metadata, for selectors of the access file
	// by name; "": not known.
	Controller string
	// Wait: if the controller is not connected, the command may wait at the broker until it
	// expires. Otherwise it is refused.
	Wait bool
}

// Answer is the outcome of an Order. An outcome unknown may still become confirmed.
type Answer struct {
	outcome.Result
	// Repeated: the id was used before, and this is the outcome of that command.
	Repeated bool `json:"repeated,omitempty"`
}

// PendingError is the error of an Order that was sent and had no outcome in time. The same
// Order with the ID returns it later.
type PendingError struct {
	ID    string
	cause error
}

func (e *PendingError) Error() string {
	return fmt.Sprintf("the outcome of the command is not known yet; send it again with the id %s to see its outcome", e.ID)
}

// Unwrap returns why the wait ended.
func (e *PendingError) Unwrap() error { return e.cause }

// Sender sends commands. It is safe for concurrent use.
type Sender struct {
	streams *stream.Client
	policy  func() *access.Policy
}

// NewSender returns a Sender that checks each command against what policy returns at the
// time. Its user at NATS must be allowed to publish on f2.command.> and f2.result.>, and to
// read single messages of COMMANDS and RESULT.
func NewSender(streams *stream.Client, policy func() *access.Policy) *Sender {
	return &Sender{streams: streams, policy: policy}
}

// Do sends the command, unless its id was used before or its person may not send it, and
// returns the outcome. If ctx ends before, the error is a *PendingError.
func (s *Sender) Do(ctx context.Context, o Order) (Answer, error) {
	if len(o.ID) > maxID || strings.ContainsFunc(o.ID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Answer{}, fmt.Errorf("the id must have at most %d characters of ASCII, without spaces", maxID)
	}
	if allowed, why := s.policy().Allowed(o.Person, access.Command, access.PlaceOf(o.Place, o.Controller)); !allowed {
		return s.deny(ctx, &o, why)
	}
	w, err := s.listen(o.Place.CommandSubject())
	if err != nil {
		return Answer{}, err
	}
	defer w.stop()
	if o.ID != "" {
		if known, err := w.earlier(ctx, o.ID); err != nil || known {
			return w.answer(ctx, o.ID, known, err)
		}
	}
	o.ID = cmp.Or(o.ID, rand.Text())
	repeated, err := w.send(ctx, &o)
	return w.answer(ctx, o.ID, repeated, err)
}

// deny puts on record that the command is refused before it is sent.
func (s *Sender) deny(ctx context.Context, o *Order, why string) (Answer, error) {
	now := time.Now().UTC()
	r := outcome.Result{ID: o.ID, Person: o.Person, Command: o.Place.CommandSubject(), Outcome: outcome.Refused, Detail: why, Issued: now, At: now}
	if !access.ValidName(r.Person) {
		r.Person = ""
	}
	m, err := r.Msg()
	if err != nil {
		return Answer{}, err
	}
	if err := s.store(ctx, func(ctx context.Context) error { _, err := s.streams.JetStream().PublishMsg(ctx, m); return err }); err != nil {
		return Answer{}, fmt.Errorf("recording that the command is refused (%s): %w", why, err)
	}
	return Answer{Result: r}, nil
}

// store tries a publish with an id until it succeeds, for sendTimeout.
func (s *Sender) store(ctx context.Context, publish func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := publish(ctx)
		if _, refused := errors.AsType[*jetstream.APIError](err); refused {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(200*time.Millisecond)))
	return err
}

// wait waits for the outcome of one command.
type wait struct {
	sender   *Sender
	subject  string         // of the command
	heard    chan *nats.Msg // results of the component; a full one drops them
	sub      *nats.Subscription
	sequence uint64       // of the command; 0: not known yet
	next     stream.Query // where to look on RESULT
	last     *outcome.Result
}

// listen subscribes to the component's results before anything is sent.
func (s *Sender) listen(subject string) (*wait, error) {
	w := &wait{sender: s, subject: subject, heard: make(chan *nats.Msg, 64)}
	var err error
	w.sub, err = s.streams.JetStream().Conn().Subscribe(outcome.Subject(subject), func(m *nats.Msg) {
		select {
		case w.heard <- m:
		default: // RESULT has it
		}
	})
	if err != nil {
		return nil, fmt.Errorf("subscribing to the results of commands: %w", err)
	}
	return w, nil
}

func (w *wait) stop() { _ = w.sub.Unsubscribe() }

// send stores the command on COMMANDS. It reports whether it was there already.
func (w *wait) send(ctx context.Context, o *Order) (repeated bool, err error) {
	m := nats.NewMsg(w.subject)
	m.Data = o.Body
	m.Header.Set(nats.MsgIdHdr, o.ID)
	m.Header[outcome.HeaderPerson] = []string{o.Person}
	if o.Wait {
		m.Header[outcome.HeaderWait] = []string{"true"}
	}
	start := time.Now()
	var ack *jetstream.PubAck
	attempts := 0
	err = w.sender.store(ctx, func(ctx context.Context) error {
		attempts++
		ack, err = w.sender.streams.JetStream().PublishMsg(ctx, m)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("sending the command: %w; it may have been stored: send it again with the id %s to see its outcome", err, o.ID)
	}
	if ack.Duplicate {
		start = start.Add(-window)
		if err := w.same(ctx, ack.Sequence, m); err != nil {
			return false, err
		}
	}
	w.sequence = ack.Sequence
	start = start.Add(-clockSkew)
	w.next = stream.Query{Next: outcome.Subject(w.subject), Start: &start}
	return ack.Duplicate && attempts == 1, nil
}

// same returns an error if COMMANDS has another command under the id.
func (w *wait) same(ctx context.Context, sequence uint64, m *nats.Msg) error {
	stored, err := w.sender.streams.Message(ctx, stream.Commands, stream.Query{Sequence: sequence})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if stored.Subject != m.Subject || !bytes.Equal(stored.Data, m.Data) {
		return fmt.Errorf("the id %s was used for another command within the last hour; each command needs an id of its own", m.Header.Get(nats.MsgIdHdr))
	}
	return nil
}

// answer waits for the outcome, and returns it with err if that says that there is none.
func (w *wait) answer(ctx context.Context, id string, repeated bool, err error) (Answer, error) {
	if err != nil {
		return Answer{}, err
	}
	if err := w.await(ctx); err != nil {
		return Answer{}, &PendingError{ID: id, cause: err}
	}
	return Answer{Result: *w.last, Repeated: repeated}, nil
}

// await returns when there is an outcome.
func (w *wait) await(ctx context.Context) error {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for w.last == nil || w.last.Outcome == outcome.Sent {
		select {
		case m := <-w.heard:
			w.note(m.Header, m.Data)
		case <-look.C:
			if err := w.look(ctx); err != nil && ctx.Err() == nil {
				continue // the next one may succeed
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// note takes a result, if it is the command's.
func (w *wait) note(header nats.Header, data []byte) {
	r, err := outcome.Parse(header, data)
	if err != nil || r.Sequence != w.sequence || w.last != nil && w.last.Outcome.Final() {
		return
	}
	if w.next.Start != nil && r.Issued.Before(*w.next.Start) {
		return // COMMANDS was created again and counts from 1
	}
	w.last = &r
}

// look reads what RESULT has from the place where the last look ended.
func (w *wait) look(ctx context.Context) error {
	q := w.next
	for {
		m, err := w.sender.streams.Message(ctx, stream.Result, q)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		w.note(m.Header, m.Data)
		q.Start, q.Sequence = nil, m.Sequence+1
	}
}
