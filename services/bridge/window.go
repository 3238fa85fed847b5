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
	// repeatWithin is how long after an event another one with the same bytes counts as a
	// possible repeat.
	repeatWithin = 5 * time.Minute
	// maxRecent is how many events are remembered for that: some 8 MiB of memory.
	maxRecent = 1 << 16
	// packetIDs is the number of packet identifiers: 1 to 65,535.
	packetIDs = math.MaxUint16
)

// window tells messages that the broker sends again from new ones (design 5.3). It is not
// safe for concurrent use.
//
// Mosquitto numbers the messages of a session with packet identifiers, in order. After a
// reconnect or restart it sends unacknowledged messages again: with DUP, with the same
// identifier, in the same order, and at most max_inflight_messages of them. DUP alone
// proves nothing: Mosquitto also sets it on messages that never reached the bridge. So a
// message is a copy if it has DUP, has the identifier and the bytes of a stored message,
// and its identifier is among the last max_inflight_messages up to the last one taken.
// Earlier identifiers belong to the previous round, later ones have not been taken yet.
//
// After a crash of the broker the identifiers continue from its last save, which is more than
// max_inflight_messages ago on a slow machine. The first message with an identifier that was
// used since then moves the window back. What was queued
// at the save comes again without DUP, in the same order. Then, as long as identifiers and
// bytes are those of before, each message may be a repeat.
type window struct {
	inflight int
	seed     maphash.Seed
	byID     [packetIDs + 1]taken // the last message with each identifier
	last     uint16               // identifier of the last message in the broker's order; 0: none
	until    uint16               // what last was before it moved back, while messages come again; 0: they do not
	recent   *lru.Cache[uint64, time.Time]
}

// taken is a message that was taken before.
type taken struct {
	digest uint64 // 0: none
	at     time.Time
}

func newWindow(inflight int) *window {
	recent, err := lru.New[uint64, time.Time](maxRecent)
	if err != nil {
		panic(err) // the size is a constant
	}
	return &window{inflight: inflight, seed: maphash.MakeSeed(), recent: recent}
}

// message is what the window needs of a message.
type message struct {
	id     uint16 // 0: QoS 0
	dup    bool
	digest uint64
	event  bool // not a reading: readings have a natural key
	letter bool // it goes to DEAD_LETTER and not to RAW
	at     time.Time
}

// digest returns a hash, never 0, that is valid in this process only.
func (w *window) digest(place string, payload []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(w.seed)
	_, _ = h.WriteString(place)
	_ = h.WriteByte(0)
	_, _ = h.Write(payload)
	return max(h.Sum64(), 1)
}

// verdict is what the window decides about a message.
type verdict int

const (
	first  verdict = iota // a new message
	repeat                // a possible repeat of an earlier message
	copied                // a copy of a message that was taken before
)

// take decides about the next message, and remembers it. It returns the time of receipt
// that the message shall have: that of the earlier message if a reading is a possible
// repeat. So the two are one row, also if the reading has no time of its own.
func (w *window) take(m message) (v verdict, at time.Time) {
	same := m.id != 0 && w.byID[m.id].digest == m.digest
	if same && m.dup && w.behind(m.id, w.inflight) {
		return copied, m.at
	}
	again := same && (w.behind(m.id, w.inflight) || w.ahead(m.id) || w.farBehind(m))
	if again && !m.event {
		m.at = w.byID[m.id].at
	}
	w.remember(m, again)
	if !m.event {
		if again {
			return repeat, m.at
		}
		return first, m.at
	}
	before, known := w.recent.Get(m.digest)
	w.recent.Add(m.digest, m.at)
	if again || known && m.at.Sub(before) < repeatWithin {
		return repeat, m.at
	}
	return first, m.at
}

// behind reports whether an identifier is among the last n up to the last one taken.
func (w *window) behind(id uint16, n int) bool {
	return id != 0 && w.last != 0 && distance(id, w.last) < n
}

// farBehind reports whether a message may be one that the broker had queued at a save that is
// more than inflight messages ago. It must be recent: a broker with a new session counts from 1
// again, and a sensor's value may be the same for hours.
func (w *window) farBehind(m message) bool {
	return w.behind(m.id, packetIDs-w.inflight) && m.at.Sub(w.byID[m.id].at) < repeatWithin
}

// ahead reports whether an identifier comes after the last one taken, and was used before
// that moved back.
func (w *window) ahead(id uint16) bool {
	return w.until != 0 && distance(w.last, id) <= distance(w.last, w.until)
}

// distance is how many identifiers b comes after a.
func distance(a, b uint16) int { return (int(b) - int(a) + packetIDs) % packetIDs }

func (w *window) remember(m message, again bool) {
	if m.id == 0 {
		return
	}
	w.byID[m.id] = taken{m.digest, m.at}
	switch {
	case !again:
		w.until = 0
	case w.until == 0:
		w.until = w.last
	}
	// The next process does not find a letter in RAW. A letter that comes again must not
	// move the window: the messages after it may be in RAW.
	if !m.letter || !m.dup || !w.behind(m.id, w.inflight) {
		w.last = m.id
	}
}

// pass remembers a copy of a retained message: it has an identifier, too. It has the retain
// flag even if the broker sends it again.
func (w *window) pass(id uint16, dup bool) {
	if id != 0 && !dup {
		w.byID[id], w.last, w.until = taken{}, id, 0
	}
}

// learn remembers a message that another bridge has stored since recall. The broker may send
// it again, and the messages that are in hand may come before it or after it.
func (w *window) learn(m message) {
	if m.event {
		w.recent.Add(m.digest, m.at)
	}
	if m.id == 0 {
		return
	}
	w.byID[m.id] = taken{m.digest, m.at}
	if w.last == 0 || distance(w.last, m.id) < w.inflight {
		w.last = m.id
	}
}

// recall reads the end of RAW, up to the sequence last: what the broker may send again. This is
// more than it may have in flight, because its last save may be seconds old.
func (w *window) recall(ctx context.Context, streams *stream.Client, last uint64) error {
	begin := uint64(1)
	if last > stream.RawTail {
		begin = last - stream.RawTail + 1
	}
	err := streams.Range(ctx, stream.Raw, begin, last, func(m *jetstream.RawStreamMsg) {
		w.take(w.stored(m))
	})
	if err != nil {
		return fmt.Errorf("reading the messages that the broker may send again: %w", err)
	}
	return nil
}

// stored returns a message of RAW as take saw it.
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
