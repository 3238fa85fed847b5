package bridge

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// repeatWithin is how soon an event with the bytes of an earlier one may be its repeat.
	repeatWithin = 5 * time.Minute
	// maxRecent bounds of how many events that is remembered: some 8 MiB of memory.
	maxRecent = 1 << 16
	// packetIDs is how many packet identifiers there are: 1 to 65,535.
	packetIDs = math.MaxUint16
)

// window tells what the broker sends again from what is new (design 5.3). One
// goroutine uses it.
//
// Mosquitto numbers the messages of a session with packet identifiers in their
// order, and a message keeps its own. What it had handed over and has no
// acknowledgement of comes again after a reconnect or restart with DUP and the same
// identifier, in the same order, and there are at most max_inflight_messages. DUP
// alone says nothing: Mosquitto sets it also on what never reached the bridge. So a
// message is a copy if it has DUP, the identifier and the bytes of one that was
// stored, and the identifier is one of the last max_inflight_messages up to the last
// that was taken. Those before are of an earlier round of the identifiers, those
// behind have not been taken yet.
//
// After a crash of the broker the identifiers go on from its last save. The first
// message with one that was used since moves the window back.
type window struct {
	inflight int
	seed     maphash.Seed
	byID     [packetIDs + 1]uint64 // digest of the last message with an identifier; 0 is none
	last     uint16                // identifier of the last message in the broker's order; 0 is none
	recent   *lru.Cache[uint64, time.Time]
}

func newWindow(inflight int) *window {
	recent, err := lru.New[uint64, time.Time](maxRecent)
	if err != nil {
		panic(err) // the size is a constant
	}
	return &window{inflight: inflight, seed: maphash.MakeSeed(), recent: recent}
}

// message is what the window looks at.
type message struct {
	id     uint16 // 0: QoS 0
	dup    bool
	digest uint64
	event  bool // not a reading, which has its natural key
	letter bool // RAW does not get it
	at     time.Time
}

// digest is never 0. It means nothing to another process.
func (w *window) digest(place string, payload []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(w.seed)
	_, _ = h.WriteString(place)
	_ = h.WriteByte(0)
	_, _ = h.Write(payload)
	return max(h.Sum64(), 1)
}

// verdict is what a message is.
type verdict int

const (
	first  verdict = iota // a message of its own
	repeat                // may be a repeat of an earlier event
	copied                // was taken before
)

// take judges the next message, and remembers it.
func (w *window) take(m message) verdict {
	held := w.holds(m.id, m.digest)
	if held && m.dup {
		return copied
	}
	w.remember(m)
	if !m.event {
		return first
	}
	before, known := w.recent.Get(m.digest)
	w.recent.Add(m.digest, m.at)
	if held || known && m.at.Sub(before) < repeatWithin {
		return repeat
	}
	return first
}

func (w *window) holds(id uint16, digest uint64) bool {
	return w.behind(id) && w.byID[id] == digest
}

// behind tells whether an identifier is one of the last up to the last taken.
func (w *window) behind(id uint16) bool {
	return id != 0 && w.last != 0 && (int(w.last)-int(id)+packetIDs)%packetIDs < w.inflight
}

func (w *window) remember(m message) {
	if m.id == 0 {
		return
	}
	w.byID[m.id] = m.digest
	// RAW does not tell the next process of a letter: one that comes again is not
	// news, and those behind it may well be in RAW.
	if !m.letter || !m.dup || !w.behind(m.id) {
		w.last = m.id
	}
}

// pass takes note of a retained copy, which has an identifier, too. It has the
// retain flag also where it comes again.
func (w *window) pass(id uint16, dup bool) {
	if id != 0 && !dup {
		w.byID[id], w.last = 0, id
	}
}

// recall reads the end of RAW, as far back as the broker's window reaches, and
// returns the last sequence.
func (w *window) recall(ctx context.Context, streams *stream.Client) (last uint64, err error) {
	if last, err = streams.LastSequence(ctx, stream.Raw); err != nil {
		return 0, err
	}
	begin := uint64(1)
	if reach := uint64(w.inflight); last > reach { //nolint:gosec // Config.Validate: positive
		begin = last - reach + 1
	}
	err = streams.Range(ctx, stream.Raw, begin, last, func(m *jetstream.RawStreamMsg) {
		w.take(w.stored(m))
	})
	if err != nil {
		return 0, fmt.Errorf("reading what the broker may send again: %w", err)
	}
	return last, nil
}

// stored is a message of RAW as it was taken.
func (w *window) stored(m *jetstream.RawStreamMsg) message {
	id, _ := strconv.ParseUint(m.Header.Get(event.HeaderPacketID), 10, 16) // 0: QoS 0, or not of a bridge
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get(event.HeaderReceived))
	if err != nil {
		at = m.Time
	}
	t, err := topic.ParseSubject(m.Subject)
	return message{
		id: uint16(id), digest: w.digest(m.Subject, m.Data), at: at,
		event: err == nil && t.Component.Kind != topic.Sensor,
	}
}
