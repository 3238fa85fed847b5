package deadletter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Kept is how many letters of one subject the stream keeps: max_msgs_per_subject
// of nats/stream_dead_letter.json.
const Kept = 100

// Recorder stores the letters of one stage and counts them by subject. Nothing else may
// store letters of the same subjects. It is safe for concurrent use; one Record waits for
// another.
type Recorder struct {
	streams   *stream.Client
	recording sync.Mutex
	tallies   *lru.Cache[string, tally]
	stored    *lru.Cache[stored, struct{}] // the letters that this recorder stored last
}

// tally is what is known of one subject.
type tally struct {
	count uint64   // letters so far
	floor event.ID // message of the last letter when the subject was read from the stream
	point int32    // its data point

	read  bool     // the kept letters were read, too, into Recorder.stored
	below event.ID // letters up to this message may have been stored, and are gone
}

// stored is a letter that was stored.
type stored struct {
	subject string
	id      event.ID
	point   int32
}

// maxTallies bounds how many subjects are held in memory. Those of the others are
// read from the stream again.
const maxTallies = 50_000

// maxStored bounds how many stored letters are remembered: about those of an ack_wait at full speed.
const maxStored = 1 << 16

// NewRecorder returns a recorder that stores through streams, whose user must be
// allowed to publish its stage's letters and to read the last of each subject.
func NewRecorder(streams *stream.Client) *Recorder {
	tallies, err := lru.New[string, tally](maxTallies)
	if err != nil {
		panic(err) // the size is a constant
	}
	letters, err := lru.New[stored, struct{}](maxStored)
	if err != nil {
		panic(err) // as above
	}
	return &Recorder{streams: streams, tallies: tallies, stored: letters}
}

// Record stores letters in their order and returns when they are on disk. It
// retries for as long as ctx lasts, and fails only with ctx. A letter that was
// stored before is left out, unless it is Replayed. A message may be delivered after
// newer ones, and its letter is stored; but not if it may be one of those of its subject
// that are gone, as more than Kept came after it or somebody removed them. Of more than Kept
// letters of one subject it stores the last, and counts the others.
func (r *Recorder) Record(ctx context.Context, letters []Letter) error {
	if len(letters) == 0 {
		return nil
	}
	r.recording.Lock()
	defer r.recording.Unlock()
	changed := make(map[string]tally)
	var messages []*nats.Msg
	of := make(map[string]int) // letters of the subject in messages
	now := make(map[stored]bool)
	for i := range letters {
		l := &letters[i]
		subject := l.Subject()
		t, ok := changed[subject]
		if !ok {
			var err error
			if t, err = r.tally(ctx, subject); err != nil {
				return fmt.Errorf("recording dead letters: %w", err)
			}
		}
		key := stored{subject, l.ID, l.DataPointID}
		if !l.Replayed && l.ID != (event.ID{}) { // one that was never on RAW has no place
			before, err := r.hasStored(ctx, &t, key)
			if err != nil {
				return fmt.Errorf("recording dead letters: %w", err)
			}
			if before || now[key] {
				changed[subject] = t
				continue
			}
			now[key] = true
		}
		t.count += max(l.Times, 1)
		changed[subject] = t
		of[subject]++
		messages = append(messages, l.message(t.count))
	}
	messages = newest(messages, of)
	if _, err := r.streams.Store(ctx, stream.DeadLetter, messages); err != nil {
		return fmt.Errorf("recording dead letters: %w", err)
	}
	for subject, t := range changed {
		r.tallies.Add(subject, t)
	}
	for key := range now {
		r.stored.Add(key, struct{}{})
	}
	return nil
}

// newest drops what the stream would not keep.
func newest(messages []*nats.Msg, of map[string]int) []*nats.Msg {
	kept := messages[:0]
	for _, m := range messages {
		if of[m.Subject] <= Kept {
			kept = append(kept, m)
		}
		of[m.Subject]--
	}
	return kept
}

// hasStored reports whether a letter was stored before, by this process or another. It reads
// the letters that are kept only for one that is not newer than the last.
func (r *Recorder) hasStored(ctx context.Context, t *tally, l stored) (bool, error) {
	if r.stored.Contains(l) {
		return true, nil
	}
	if order := bytes.Compare(l.id[:], t.floor[:]); order > 0 || order == 0 && l.point > t.point {
		return false, nil
	}
	if !t.read {
		if err := r.readKept(ctx, t, l.subject); err != nil {
			return false, err
		}
	}
	return r.stored.Contains(l) || bytes.Compare(l.id[:], t.below[:]) <= 0, nil
}

// readKept remembers the letters of a subject that are kept.
func (r *Recorder) readKept(ctx context.Context, t *tally, subject string) error {
	next, kept, oldest := uint64(1), 0, event.ID{}
	for ; ; kept++ {
		m, err := r.streams.Message(ctx, stream.DeadLetter, stream.Query{Next: subject, Sequence: next})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the letters of %s: %w", subject, err)
		}
		id, point := placeOf(m)
		if kept == 0 {
			oldest = id
		}
		if m.Header.Get(HeaderRemoved) != "" {
			t.below = id
		}
		r.stored.Add(stored{subject, id, point}, struct{}{})
		next = m.Sequence + 1
	}
	if t.read = true; kept >= Kept && bytes.Compare(oldest[:], t.below[:]) > 0 {
		t.below = oldest
	}
	return nil
}

// placeOf returns the message and the data point of a letter; zero if they are not known.
func placeOf(m *jetstream.RawStreamMsg) (id event.ID, point int32) {
	id, _ = event.ParseID(m.Header.Get(event.HeaderID))
	number, _ := strconv.ParseInt(m.Header.Get(HeaderDataPoint), 10, 32)
	return id, int32(number)
}

// tally reads the last letter of a subject where it is not known.
func (r *Recorder) tally(ctx context.Context, subject string) (tally, error) {
	if t, ok := r.tallies.Get(subject); ok {
		return t, nil
	}
	last, err := r.streams.Last(ctx, stream.DeadLetter, subject) // a letter, or what stands for a removed one
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return tally{}, nil
	}
	if err != nil {
		return tally{}, fmt.Errorf("reading the last letter of %s: %w", subject, err)
	}
	var t tally
	t.count, _ = strconv.ParseUint(last.Header.Get(HeaderCount), 10, 64) // 0: of an earlier version
	t.floor, t.point = placeOf(last)
	return t, nil
}

// message is the letter as it is stored, the count-th of its subject.
func (l *Letter) message(count uint64) *nats.Msg {
	m := nats.NewMsg(l.Subject())
	set := func(key, value string) {
		if value != "" {
			m.Header[key] = []string{value}
		}
	}
	set(HeaderCount, strconv.FormatUint(count, 10))
	if l.ID != (event.ID{}) {
		set(event.HeaderID, l.ID.String())
		set(HeaderRawSequence, strconv.FormatUint(l.ID.Sequence(), 10))
	} else {
		m.Data = l.Payload
		set(HeaderDigest, event.ID(event.Digest(l.place(), l.Payload)).String())
	}
	if len(m.Data) > MaxPayload {
		sum := sha256.Sum256(m.Data)
		set(HeaderPayloadLength, strconv.Itoa(len(m.Data)))
		set(HeaderPayloadSHA256, hex.EncodeToString(sum[:]))
		m.Data = m.Data[:MaxPayload]
	}
	set(event.HeaderReceived, l.Received.UTC().Format(time.RFC3339Nano))
	set(HeaderDetail, quote(l.Detail))
	set(HeaderTopic, quote(l.Topic))
	set(HeaderTime, l.Time.UTC().Format(time.RFC3339Nano))
	if l.DataPointID != 0 {
		set(HeaderDataPoint, strconv.Itoa(int(l.DataPointID)))
	}
	if l.Part {
		set(HeaderDecoded, strconv.Itoa(l.Decoded))
		set(HeaderMember, quote(l.Member))
	}
	set(HeaderMetadataVersion, l.MetadataVersion)
	set(HeaderSQLState, l.SQLState)
	return m
}

// place is where the message was published: its canonical RAW subject, or the
// topic where that does not parse.
func (l *Letter) place() string {
	if t, err := topic.Parse(l.Topic); err == nil {
		return t.RawSubject()
	}
	return l.Topic
}
