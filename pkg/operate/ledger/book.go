package ledger

import (
	"cmp"
	"slices"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// unknown stands for a MAC that is not known, as in a dead letter's subject.
const unknown = "unknown"

// record is what is known of one message of RAW. The reading goroutine owns all but
// the fields of the probe.
type record struct {
	sequence uint64 // on RAW
	decoded  uint64 // sequence of the first message on DECODED; 0: none
	expected uint32 // rows that DECODED asks for
	device   uint32 // index of book.devices
	refused  uint32 // rows that the writer dead-lettered; the probe's
	cause    uint16 // index of book.causes of the letter that counts
	flags    flags
	rows     rowFlags // the probe's
}

// flags say what the streams hold of a message.
type flags uint8

// Those of letters are in the order in which they decide: a later stage's before
// an earlier one's, a whole message's before a part's.
const (
	parked           flags = 1 << iota
	decodedInPart          // a letter says that other data points were decoded
	refusedInPart          // the decoder refused data points
	refusedByDecoder       // as a whole
	writerPart             // the writer refused rows
	refusedByWriter        // as a whole
)

// rowFlags say what the tables hold of a message.
type rowFlags uint8

const (
	rowAbsent rowFlags = 1 << iota
	rowDiffers
	rowPending // not there, and the writer has not processed it yet
	rowLetter  // not there, which a letter explains that is no longer kept
)

// book holds the messages of the interval in RAW's order, and their devices.
type book struct {
	records []record
	cursor  int // where find found the last one
	macs    map[topic.MAC]uint32
	devices []ControllerCounts
	// causes are the reasons of dead letters, by stage.
	causes  []LetterCounts
	causeOf map[cause]uint16
	// parts are the data points that the writer refused.
	parts map[part]struct{}
	// holes are the sequences within the interval that RAW does not hold.
	holes []Span
}

type cause struct{ stage, reason string }

type part struct {
	sequence uint64
	point    int32
}

func newBook() *book {
	return &book{macs: make(map[topic.MAC]uint32), causeOf: make(map[cause]uint16), parts: make(map[part]struct{})}
}

// add appends the record of a message, which comes after all others.
func (b *book) add(sequence uint64, device uint32) {
	b.records = append(b.records, record{sequence: sequence, device: device})
}

// find returns nil for a message that is not in the interval. What comes in RAW's
// order, as outcomes mostly do, it finds at once.
func (b *book) find(sequence uint64) *record {
	for next := b.cursor; next < min(b.cursor+2, len(b.records)); next++ {
		if b.records[next].sequence == sequence {
			b.cursor = next
			return &b.records[next]
		}
	}
	i, ok := slices.BinarySearchFunc(b.records, sequence, func(r record, s uint64) int { return cmp.Compare(r.sequence, s) })
	if !ok {
		return nil
	}
	b.cursor = i
	return &b.records[i]
}

// inHole reports whether RAW had such a message within the interval and lost it.
func (b *book) inHole(sequence uint64) bool {
	i, ok := slices.BinarySearchFunc(b.holes, sequence, func(h Span, s uint64) int { return cmp.Compare(h.Last, s) })
	return ok || i < len(b.holes) && b.holes[i].First <= sequence
}

// device returns the index of the device with that MAC, which may be part of a
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
	b.devices = append(b.devices, ControllerCounts{MAC: m})
	return i
}

// maxCauses bounds what letters with invented reasons can cost.
const maxCauses = 1000

// cause returns the index of the stage's reason.
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
	b.causes = append(b.causes, LetterCounts{Stage: stage, Reason: reason})
	return i
}
