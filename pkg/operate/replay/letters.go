package replay

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// Letters is which dead letters are replayed, and how.
type Letters struct {
	deadletter.Filter
	// Replace has values take the place of those that the tables have.
	Replace bool
	// DryRun only decodes and compares.
	DryRun bool
	// Progress is called with the number of letters that were tried, and their total.
	Progress func(done, total uint64)
}

// Replayed is what became of letters.
type Replayed struct {
	DryRun  bool   `json:"-"`
	Letters uint64 `json:"letters"` // that were tried
	// Accepted are letters whose refused part is now in the tables, or on RAW for one
	// of the bridge. With a dry run it would be.
	Accepted uint64            `json:"accepted"`
	Refused  map[string]uint64 `json:"refused,omitempty"` // still, by today's reason
	// NotWritten are letters of messages that decode now, and whose rows the writer did
	// not write: with other values for the same moment, or refused.
	NotWritten uint64 `json:"not_written"`
	Trimmed    uint64 `json:"trimmed"` // RAW no longer holds the message
	Cut        uint64 `json:"cut"`     // the letter has only the beginning of a payload that never reached RAW
	NotKept    uint64 `json:"not_kept"`
}

// slim is what is held of each letter: nothing that is long.
func slim(s *deadletter.Stored) deadletter.Stored {
	return deadletter.Stored{
		Letter:   deadletter.Letter{Stage: s.Stage, Reason: s.Reason, MAC: s.MAC, ID: s.ID, DataPointID: s.DataPointID, Part: s.Part},
		Sequence: s.Sequence, Count: s.Count,
	}
}

// Replay tries dead letters once more where they were refused: what never reached RAW
// is put there, other messages are read there, decoded with today's metadata and put
// on DECODED. Letters of what was accepted are removed, after the writer has written
// the rows.
func (m *Replayer) Replay(ctx context.Context, l Letters) (*Replayed, error) {
	out := &Replayed{DryRun: l.DryRun, Refused: map[string]uint64{}}
	var behind, bridges []deadletter.Stored
	before := make(map[string]uint64)
	filter := l.Filter
	filter.HeadersOnly = true
	err := filter.Read(ctx, m.Streams.JetStream(), func(s deadletter.Stored) error {
		subject := s.Subject()
		if count := before[subject]; s.Count > count+1 && !s.Counted() {
			out.NotKept += s.Count - count - 1
		}
		before[subject] = s.Count
		switch {
		case s.Removed || s.Counted():
		case s.ID != event.ID{}:
			behind = append(behind, slim(&s))
		case s.Stage == stream.StageBridge:
			bridges = append(bridges, slim(&s))
		default:
			out.Letters++
			out.Refused[s.Reason]++ // what is no message of RAW cannot be decoded
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("reading dead letters: %w", err)
	}
	total := uint64(len(behind) + len(bridges))
	progress := func(n int) {
		out.Letters += uint64(n) //nolint:gosec // not negative
		if l.Progress != nil {
			l.Progress(out.Letters, total)
		}
	}
	if err := m.replayBridge(ctx, bridges, l.DryRun, out, progress); err != nil {
		return out, err
	}
	return out, m.replayDecoded(ctx, behind, &l, out, progress)
}

// replayBridge puts on RAW what the bridge refused and would not refuse now.
func (m *Replayer) replayBridge(ctx context.Context, letters []deadletter.Stored, dryRun bool, out *Replayed, progress func(int)) error {
	js := m.Streams.JetStream()
	for i := range letters {
		l, err := deadletter.Get(ctx, js, letters[i].Sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // replayed by somebody else, or no longer kept
		}
		if err != nil {
			return err
		}
		progress(1)
		t, err := topic.Parse(l.Topic)
		if err != nil {
			if refused, ok := errors.AsType[*topic.Error](err); ok {
				out.Refused[refused.Reason]++
			}
			continue
		}
		if !l.Whole() {
			out.Cut++
			continue
		}
		if !dryRun {
			if err := m.putOnRaw(ctx, &l, t); err != nil {
				return fmt.Errorf("putting letter %d on %s: %w", l.Sequence, stream.Raw, err)
			}
			if err := deadletter.Remove(ctx, js, []deadletter.Stored{l}); err != nil {
				return err
			}
		}
		out.Accepted++
	}
	return nil
}

// putOnRaw stores what a letter holds, unless that was done before.
func (m *Replayer) putOnRaw(ctx context.Context, l *deadletter.Stored, t topic.Topic) error {
	subject, name := t.RawSubject(), strconv.FormatUint(l.Sequence, 10)
	there := false
	s := stream.Scan{Stream: stream.Raw, Subjects: []string{subject}, Since: l.Stored, HeadersOnly: true}
	err := s.Read(ctx, m.Streams.JetStream(), func(raw *stream.Message) error {
		if raw.Header.Get(event.HeaderReplayed) == name {
			there = true
			return stream.ErrStop
		}
		return nil
	})
	if err != nil || there {
		return err
	}
	out := &nats.Msg{Subject: subject, Data: l.Payload, Header: nats.Header{
		event.HeaderReceived: {l.Received.UTC().Format(time.RFC3339Nano)},
		event.HeaderReplayed: {name},
	}}
	if l.Topic != t.MQTT() {
		out.Header[event.HeaderTopic] = []string{l.Topic}
	}
	_, err = m.Streams.JetStream().PublishMsg(ctx, out)
	return err
}

// attempt is a message that is decoded once more, with its letters.
type attempt struct {
	letters []deadletter.Stored
	result  DecodedMessage
}

func (m *Replayer) replayDecoded(ctx context.Context, letters []deadletter.Stored, l *Letters, out *Replayed, progress func(int)) error {
	incarnation, raw, err := m.incarnation(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(letters, func(x, y deadletter.Stored) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	var attempts []attempt
	waiting := 0
	flush := func() error {
		err := m.settle(ctx, attempts, l, out)
		progress(waiting)
		attempts, waiting = attempts[:0], 0
		return err
	}
	for len(letters) > 0 {
		id := letters[0].ID
		n := 1
		for n < len(letters) && letters[n].ID == id {
			n++
		}
		own := letters[:n]
		letters = letters[n:]
		waiting += n
		found, err := fetch(ctx, raw, incarnation, id)
		if err != nil {
			return err
		}
		if found == nil {
			out.Trimmed += uint64(n)
			continue
		}
		result, err := m.Decoder.Decode(ctx, found, id)
		if err != nil {
			return err
		}
		attempts = append(attempts, attempt{own, result})
		if len(attempts) == batchMessages {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// fetch returns the message at a place, or nil if RAW does not hold it any more.
func fetch(ctx context.Context, raw jetstream.Stream, incarnation uint64, id event.ID) (*stream.Message, error) {
	if id.Incarnation() != incarnation {
		return nil, nil
	}
	m, err := raw.GetMsg(ctx, id.Sequence())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading message %d of %s: %w", id.Sequence(), stream.Raw, err)
	}
	return stream.MessageOf(m), nil
}

// Fetch returns the message of RAW that a letter is of, or nil if RAW does not hold it
// any more.
func (m *Replayer) Fetch(ctx context.Context, l *deadletter.Stored) (*stream.Message, error) {
	incarnation, raw, err := m.incarnation(ctx)
	if err != nil {
		return nil, err
	}
	return fetch(ctx, raw, incarnation, l.ID)
}

// stillRefused returns the letter that today's decoding makes in place of l, or nil.
func (a *attempt) stillRefused(l *deadletter.Stored) *deadletter.Letter {
	if a.result.Decoded == nil && len(a.result.Letters) > 0 {
		return &a.result.Letters[0]
	}
	if l.Stage == stream.StageWriter || !l.Part {
		return nil
	}
	for i := range a.result.Letters {
		today := &a.result.Letters[i]
		if today.DataPointID == l.DataPointID && (l.DataPointID != 0 || today.Reason == l.Reason) {
			return today
		}
	}
	return nil
}

// settle puts on DECODED what decodes now, waits for the rows, and removes the letters
// of what has them.
func (m *Replayer) settle(ctx context.Context, attempts []attempt, l *Letters, out *Replayed) error {
	var good []*attempt
	for i := range attempts {
		a := &attempts[i]
		a.letters = slices.DeleteFunc(slices.Clone(a.letters), func(letter deadletter.Stored) bool {
			today := a.stillRefused(&letter)
			if today != nil {
				out.Refused[today.Reason]++
			}
			return today != nil
		})
		if len(a.letters) > 0 {
			good = append(good, a)
		}
	}
	if len(good) == 0 {
		return nil
	}
	rows, err := m.changes(ctx, good)
	if err != nil {
		return err
	}
	if !l.DryRun {
		if err := m.write(ctx, good, rows, l.Replace); err != nil {
			return err
		}
		if rows, err = m.changes(ctx, good); err != nil {
			return err
		}
	}
	var accepted []deadletter.Stored
	for i, a := range good {
		if !l.DryRun && unwritten(rows[i]) {
			out.NotWritten += uint64(len(a.letters))
			continue
		}
		out.Accepted += uint64(len(a.letters))
		accepted = append(accepted, a.letters...)
	}
	if l.DryRun {
		return nil
	}
	if m.remove != nil && len(accepted) > 0 {
		return m.remove(ctx, accepted)
	}
	slices.SortFunc(accepted, func(x, y deadletter.Stored) int { return cmp.Compare(x.Sequence, y.Sequence) })
	return deadletter.Remove(ctx, m.Streams.JetStream(), accepted)
}

func (m *Replayer) changes(ctx context.Context, good []*attempt) ([][]change, error) {
	all := make([]*event.Decoded, len(good))
	for i, a := range good {
		all[i] = a.result.Decoded
	}
	return m.Tables.compare(ctx, all)
}

// write has the writer write the rows that are not there.
func (m *Replayer) write(ctx context.Context, good []*attempt, rows [][]change, replace bool) error {
	var lacking []*attempt
	for i, a := range good {
		if unwritten(rows[i]) {
			lacking = append(lacking, a)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	put := m.put
	if put == nil {
		put = m.putOnDecoded
	}
	last, err := put(ctx, lacking, replace)
	if err != nil {
		return fmt.Errorf("putting messages on %s: %w", stream.Decoded, err)
	}
	return m.awaitWriter(ctx, last, 0)
}

func (m *Replayer) putOnDecoded(ctx context.Context, all []*attempt, replace bool) (uint64, error) {
	messages := make([]*nats.Msg, len(all))
	for i, a := range all {
		messages[i] = a.result.message(replace)
	}
	return m.store(ctx, messages)
}

// unwritten reports whether the tables lack a value, or have another.
func unwritten(changes []change) bool {
	return slices.ContainsFunc(changes, func(c change) bool { return c.kind == New || c.kind == Changed })
}
