package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// Subject is where the decoder takes a LetterRequest and replies with a LetterAnswer, or with an error as NATS
// microservices do.
const Subject = "f2.replay"

// LetterRequest has the decoder do what changes streams, for somebody who may only read them. It is safe to
// repeat.
type LetterRequest struct {
	Letter uint64 `json:"letter"` // sequence on DEAD_LETTER
	// Remove removes the letter, if its message decodes now. Otherwise the message is decoded and put
	// on DECODED.
	Remove bool   `json:"remove,omitempty"`
	Person string `json:"person"`
}

// LetterAnswer is what the decoder replies.
type LetterAnswer struct {
	Decoded uint64 `json:"decoded,omitempty"` // last sequence of DECODED
}

// Asker makes a request, and returns the reply's data. It returns refusals as errors.
type Asker func(context.Context, *nats.Msg) (*nats.Msg, error)

var errNotOnRaw = errors.New("only the letter of a message on RAW can be replayed")

// ReplayOne tries one dead letter once more, of a message that is on RAW. It only reads, and has the
// decoder do what changes streams, in a person's name.
func (m *Replayer) ReplayOne(ctx context.Context, l deadletter.Stored, person string, ask Asker) (*Replayed, error) {
	if l.Removed || l.Counted() || l.ID == (event.ID{}) {
		return nil, probe.RefusedError{Err: fmt.Errorf("%w here: f2mesh dead replay takes all", errNotOnRaw)}
	}
	request := func(r LetterRequest) (a LetterAnswer, err error) {
		r.Letter, r.Person = l.Sequence, person
		data, err := json.Marshal(r)
		if err != nil {
			return a, err
		}
		reply, err := ask(ctx, &nats.Msg{Subject: Subject, Data: data})
		if err != nil {
			return a, err
		}
		return a, json.Unmarshal(reply.Data, &a)
	}
	one := *m
	one.put = func(context.Context, []*attempt, bool) (uint64, error) {
		a, err := request(LetterRequest{})
		return a.Decoded, err
	}
	one.remove = func(context.Context, []deadletter.Stored) error {
		_, err := request(LetterRequest{Remove: true})
		return err
	}
	out := &Replayed{Refused: map[string]uint64{}}
	err := one.replayDecoded(ctx, []deadletter.Stored{l}, &Letters{}, out, func(n int) { out.Letters += uint64(n) }) //nolint:gosec // not negative
	return out, err
}

// Serve does what a LetterRequest asks for, with the rights of the decoder. What it returns was certainly not
// done if the error is a probe.RefusedError.
func (r *LetterRequest) Serve(ctx context.Context, streams *stream.Client, decoder MetadataDecoder, incarnation uint64) (a LetterAnswer, err error) {
	m := Replayer{Streams: streams, Decoder: decoder}
	found, err := streams.Message(ctx, stream.DeadLetter, stream.Query{Sequence: r.Letter})
	if err != nil {
		return a, probe.RefusedError{Err: fmt.Errorf("reading letter %d: %w", r.Letter, err)} // nothing was done
	}
	l := deadletter.Parse(stream.MessageOf(found))
	if l.Removed || l.ID.Incarnation() != incarnation {
		return a, probe.RefusedError{Err: errNotOnRaw}
	}
	raw, err := streams.Message(ctx, stream.Raw, stream.Query{Sequence: l.ID.Sequence()})
	if err != nil {
		return a, probe.RefusedError{Err: fmt.Errorf("reading message %d of %s: %w", l.ID.Sequence(), stream.Raw, err)}
	}
	var again attempt
	if again.result, err = decoder.Decode(ctx, stream.MessageOf(raw), l.ID); err != nil {
		return a, probe.RefusedError{Err: err}
	}
	if today := again.stillRefused(&l); today != nil || again.result.Decoded == nil {
		return a, probe.RefusedError{Err: errors.New("the message is still refused")}
	}
	if r.Remove {
		return a, deadletter.Remove(ctx, streams.JetStream(), []deadletter.Stored{l})
	}
	a.Decoded, err = m.store(ctx, []*nats.Msg{again.result.message(false)})
	return a, err
}
