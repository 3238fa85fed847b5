package ledger

import (
	"strings"

	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// unknown stands for a MAC that cannot be told, as in a dead letter's subject.
const unknown = "unknown"

// record is what is known of one message. The reading goroutine owns all but
// the fields of the probe.
type record struct {
	id       event.ID
	raw      uint64 // sequence on RAW
	decoded  uint64 // sequence of the first message on DECODED; 0: none
	expected uint32 // rows that DECODED asks for
	device   uint32 // index of book.devices
	cause    uint16 // index of book.causes of the letter that counts
	flags    flags

	rows    rowFlags // the probe's
	refused uint32   // rows that the writer dead-lettered; the probe's
}

// flags say what the streams hold of a message.
type flags uint8

// Those of letters are in the order in which they decide: a later stage's before
// an earlier one's, a whole message's before a part's.
const (
	acknowledged     flags = 1 << iota // claimed
	decodedInPart                      // a letter says that other data points were decoded
	refusedInPart                      // the decoder refused data points
	refusedByDecoder                   // as a whole
	writerPart                         // the writer refused rows
	refusedByWriter                    // as a whole
	refusedByBridge
)

// rowFlags say what the tables hold of a message.
type rowFlags uint8

const (
	rowAbsent rowFlags = 1 << iota
	rowDiffers
	rowPending // not there, and the writer has yet to come to it
)

// chunk is how many records are allocated together: growing copies none.
const chunk = 1 << 13

// book holds the messages of the interval by id, and their devices.
type book struct {
	index   map[event.ID]uint32
	chunks  [][]record
	length  int
	macs    map[topic.MAC]uint32
	devices []Device
	// causes are the reasons of dead letters, by stage.
	causes  []Letters
	causeOf map[cause]uint16
	// parts are the data points that the writer refused.
	parts map[part]struct{}
}

type cause struct{ stage, reason string }

type part struct {
	id    event.ID
	point int32
}

func newBook() *book {
	return &book{
		index: make(map[event.ID]uint32), macs: make(map[topic.MAC]uint32),
		causeOf: make(map[cause]uint16), parts: make(map[part]struct{}),
	}
}

// find answers nil for an id that is not in the interval.
func (b *book) find(id event.ID) *record {
	if i, ok := b.index[id]; ok {
		return b.at(i)
	}
	return nil
}

func (b *book) at(i uint32) *record { return &b.chunks[i/chunk][i%chunk] }

// add answers a new record, or the id's present one and false.
func (b *book) add(id event.ID) (r *record, added bool) {
	if r := b.find(id); r != nil {
		return r, false
	}
	b.index[id] = uint32(b.length) //nolint:gosec // 4 billion records do not fit in memory
	return b.addNameless(id), true
}

// addNameless adds a record that find does not answer.
func (b *book) addNameless(id event.ID) *record {
	if b.length%chunk == 0 {
		b.chunks = append(b.chunks, make([]record, 0, chunk))
	}
	last := &b.chunks[len(b.chunks)-1]
	*last = append(*last, record{id: id})
	b.length++
	return &(*last)[len(*last)-1]
}

// device answers the index of the device with that MAC, which may be part of a
// larger string; anything but a canonical MAC is the unknown device.
func (b *book) device(mac string) uint32 {
	if i, ok := b.macs[topic.MAC(mac)]; ok {
		return i
	}
	if m, err := topic.ParseMAC(mac); err != nil || string(m) != mac {
		mac = unknown
		if i, ok := b.macs[unknown]; ok {
			return i
		}
	}
	m := topic.MAC(strings.Clone(mac))
	i := uint32(len(b.devices)) //nolint:gosec // as many as controllers
	b.macs[m] = i
	b.devices = append(b.devices, Device{MAC: m})
	return i
}

// maxCauses bounds what letters with invented reasons can cost.
const maxCauses = 1000

// cause answers the index of the stage's reason.
func (b *book) cause(stage, reason string) uint16 {
	if i, ok := b.causeOf[cause{stage, reason}]; ok {
		return i
	}
	if len(b.causes) >= maxCauses {
		stage, reason = unknown, "other"
		if i, ok := b.causeOf[cause{stage, reason}]; ok {
			return i
		}
	}
	stage, reason = strings.Clone(stage), strings.Clone(reason)
	i := uint16(len(b.causes)) //nolint:gosec // at most maxCauses
	b.causeOf[cause{stage, reason}] = i
	b.causes = append(b.causes, Letters{Stage: stage, Reason: reason})
	return i
}
